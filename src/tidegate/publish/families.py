"""The metric families of Triton's TensorRT-LLM backend, as data.

Names, help texts and labels are those of triton-inference-server/tensorrtllm_backend (dashboards and gateways select by
them); `waiting` and `fraction` are the composites that its PR #725 added and GIE proposal 003 expects.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What the values of a family mean; the words of an exposition's TYPE line."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFamily:
    """One family: a name, and one series for each value of one label."""

    name: str
    help: str
    kind: Kind
    label: str
    """The label that tells the family's series apart; `model` and `version` come on top."""
    fields: Mapping[str, str]
    """Value of that label → field of BatchManagerStatistics; of a histogram → argument of `Reporter.observe`."""
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, ascending, without +Inf."""


TOKEN_LENGTH_BUCKETS = (10.0, 50.0, 100.0, 500.0, 1000.0)

STATISTICS_FAMILIES = (
    MetricFamily(
        name="nv_trt_llm_request_metrics",
        help="TRT LLM request metrics",
        kind=Kind.GAUGE,
        label="request_type",
        fields={
            "active": "active_requests",
            "max": "max_requests",
            "scheduled": "scheduled_requests",
            "context": "context_requests",
            "waiting": "waiting_requests",
        },
    ),
    MetricFamily(
        name="nv_trt_llm_runtime_memory_metrics",
        help="TRT LLM runtime memory metrics",
        kind=Kind.GAUGE,
        label="memory_type",
        fields={"cpu": "cpu_memory_bytes", "gpu": "gpu_memory_bytes", "pinned": "pinned_memory_bytes"},
    ),
    MetricFamily(
        name="nv_trt_llm_kv_cache_block_metrics",
        help="TRT LLM KV cache block metrics",
        kind=Kind.GAUGE,
        label="kv_cache_block_type",
        fields={
            "max": "max_kv_blocks",
            "free": "free_kv_blocks",
            "used": "used_kv_blocks",
            "tokens_per": "tokens_per_kv_block",
            "reused": "reused_kv_blocks",
            "fraction": "kv_utilization",
        },
    ),
    MetricFamily(
        name="nv_trt_llm_disaggregated_serving_metrics",
        help="TRT LLM disaggregated serving metrics",
        kind=Kind.COUNTER,
        label="disaggregated_serving_type",
        fields={"kv_cache_transfer_ms": "kv_transfer_ms_total", "request_count": "disaggregated_requests_total"},
    ),
    MetricFamily(
        name="nv_trt_llm_inflight_batcher_metrics",
        help="TRT LLM inflight_batcher-specific metrics",
        kind=Kind.GAUGE,
        label="inflight_batcher_specific_metric",
        fields={
            "total_context_tokens": "inflight_context_tokens",
            "generation_requests": "generation_requests",
            "micro_batch_id": "micro_batch_id",
            "paused_requests": "paused_requests",
        },
    ),
    MetricFamily(
        name="nv_trt_llm_v1_metrics",
        help="TRT LLM v1-specific metrics",
        kind=Kind.GAUGE,
        label="v1_specific_metric",
        fields={
            "total_context_tokens": "static_context_tokens",
            "total_generation_tokens": "static_generation_tokens",
            "empty_generation_slots": "empty_generation_slots",
        },
    ),
    MetricFamily(
        name="nv_trt_llm_general_metrics",
        help="General TRT LLM metrics",
        kind=Kind.GAUGE,
        label="general_type",
        fields={"timestamp": "timestamp_us", "iteration_counter": "iteration"},
    ),
)
"""Families whose values are read from BatchManagerStatistics."""

OUTPUT_TOKENS_FAMILY = MetricFamily(
    name="nv_llm_output_token_len",
    help="TRT LLM response metrics",
    kind=Kind.HISTOGRAM,
    label="response_metric_type",
    fields={"total_output_tokens": "output_tokens"},
    buckets=TOKEN_LENGTH_BUCKETS,
)
INPUT_TOKENS_FAMILY = MetricFamily(
    name="nv_llm_input_token_len",
    help="TRT LLM response metrics",
    kind=Kind.HISTOGRAM,
    label="response_metric_type",
    fields={"total_input_tokens": "input_tokens"},
    buckets=TOKEN_LENGTH_BUCKETS,
)
