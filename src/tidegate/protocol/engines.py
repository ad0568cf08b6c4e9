"""What each engine calls the signals of the Model Server Protocol: plain data, read in both directions.

Scraping looks its sources up in an exposition; a simulated server or an exporter writes the first source of each
signal. Source: GIE proposal 003 and the metrics pages of the engines.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from tidegate.protocol.errors import ConfigError
from tidegate.protocol.exposition import first_mentioned
from tidegate.protocol.selectors import Selector, parse_selector


@dataclass(frozen=True, slots=True)
class SeriesValue:
    """The signal is the value of the series."""

    selector: Selector


@dataclass(frozen=True, slots=True)
class SeriesLabel:
    """The signal is a label's text; the value of the series says nothing."""

    selector: Selector
    label: str


@dataclass(frozen=True, slots=True)
class WaitingRequests:
    """The signal is active minus scheduled requests: composites.waiting_requests."""

    active: Selector
    scheduled: Selector


@dataclass(frozen=True, slots=True)
class UsedFraction:
    """The signal is used by maximum blocks: composites.used_fraction."""

    used: Selector
    maximum: Selector


@dataclass(frozen=True, slots=True)
class LoraLabels:
    """LoRA adapters in the labels of a series whose value is the time of the last update; the newest counts."""

    selector: Selector
    running: str
    """Label with the adapters that run; comma-separated."""
    waiting: str
    """Label with the adapters that wait; comma-separated."""
    max_adapters: str
    """Label with the count of adapters that fit at a time."""


Source = SeriesValue | SeriesLabel | WaitingRequests | UsedFraction


@dataclass(frozen=True, kw_only=True)
class EngineMapping:
    """Where one kind of model server publishes each signal.

    A signal has several sources where versions of the engine differ, the newest first: the first one that says
    something is taken. No source at all means that the engine does not publish the signal.
    """

    name: str
    """As in the endpoint label ``llm-d.ai/engine-type``."""
    prefix: str
    """How the names of all of its own families begin; tells engines apart."""
    queued_requests: tuple[Source, ...] = ()
    running_requests: tuple[Source, ...] = ()
    kv_utilization: tuple[Source, ...] = ()
    block_size: tuple[Source, ...] = ()
    num_blocks: tuple[Source, ...] = ()
    lora: LoraLabels | None = None
    options: str = ""
    """Options of the server without which it publishes no load; empty: it always does."""
    model_labels: tuple[str, ...] = ("model_name",)
    """Labels that tell the models of one server apart; series that differ elsewhere only are ranks of one model."""
    free_blocks: Selector | None = None
    """KV-cache blocks that are free, where they are published: no signal, but it must agree with those that are."""
    completions: tuple[Selector, ...] = ()
    """Counters that grow whenever a request finishes; the first one that is published is read."""
    gauges_come_late: bool = False
    """Whether its gauges may be absent until the first request."""
    withdrawn: frozenset[str] = frozenset()
    """Signals that only older versions publish."""
    mistaken: tuple[tuple[str, Selector], ...] = ()
    """Signals with series that some readers take for them, though the series cannot mean that."""

    @cached_property
    def families(self) -> frozenset[str]:
        """Names of all families that any of the signals may come from."""
        signals = (self.queued_requests, self.running_requests, self.kv_utilization, self.block_size, self.num_blocks)
        sources: list[Source | LoraLabels] = [source for of_signal in signals for source in of_signal]
        if self.lora is not None:
            sources.append(self.lora)
        return frozenset(selector.family for source in sources for selector in selectors(source))


def detect_engine(exposition: bytes) -> EngineMapping | None:
    """Return the engine that wrote an exposition, or None.

    HELP and TYPE lines are enough: some engines have no samples of their gauges before the first request.

    Raises:
        ScrapeError: the exposition has more lines than are read.
    """
    prefix = first_mentioned(exposition, [engine.prefix for engine in ENGINES.values()])
    return next((engine for engine in ENGINES.values() if engine.prefix == prefix), None)


def engine_named(name: str) -> EngineMapping:
    """Return the engine of this name.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    engine = ENGINES.get(name)
    if engine is None:
        near = difflib.get_close_matches(name, ENGINES, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise ConfigError(f"no engine called {name[:100]!r}", fix=f"{hint}Use one of: {', '.join(ENGINES)}.")
    return engine


def selectors(source: Source | LoraLabels) -> tuple[Selector, ...]:
    """Return the series that a source is made of."""
    match source:
        case WaitingRequests(active=active, scheduled=scheduled):
            return active, scheduled
        case UsedFraction(used=used, maximum=maximum):
            return used, maximum
        case _:
            return (source.selector,)


def _value(selector: str) -> SeriesValue:
    return SeriesValue(parse_selector(selector))


def _label(family: str, label: str) -> SeriesLabel:
    return SeriesLabel(Selector(family), label)


_TRT_LLM_REQUESTS = "nv_trt_llm_request_metrics{request_type=%s}"
_TRT_LLM_BLOCKS = "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=%s}"

_MAPPINGS = (
    # Triton comes first, since some of its backends publish families of other engines; and its TensorRT-LLM backend
    # before Triton itself, whose own queue stays empty while requests wait inside the backend.
    EngineMapping(
        name="triton-tensorrt-llm",
        prefix="nv_trt_llm_",
        queued_requests=(
            _value(_TRT_LLM_REQUESTS % "waiting"),
            WaitingRequests(
                active=parse_selector(_TRT_LLM_REQUESTS % "active"),
                scheduled=parse_selector(_TRT_LLM_REQUESTS % "scheduled"),
            ),
        ),
        running_requests=(_value(_TRT_LLM_REQUESTS % "scheduled"),),
        kv_utilization=(
            _value(_TRT_LLM_BLOCKS % "fraction"),
            UsedFraction(
                used=parse_selector(_TRT_LLM_BLOCKS % "used"), maximum=parse_selector(_TRT_LLM_BLOCKS % "max")
            ),
        ),
        block_size=(_value(_TRT_LLM_BLOCKS % "tokens_per"),),
        num_blocks=(_value(_TRT_LLM_BLOCKS % "max"),),
        free_blocks=parse_selector(_TRT_LLM_BLOCKS % "free"),
        completions=(Selector("nv_inference_request_success"), Selector("nv_llm_output_token_len_count")),
        model_labels=("model", "version", "instance"),  # each instance has a KV cache of its own
    ),
    EngineMapping(
        # What runs is not published: nv_inference_exec_count is a counter of all executions since the start.
        name="triton",
        prefix="nv_inference_",
        queued_requests=(_value("nv_inference_pending_request_count"),),
        completions=(Selector("nv_inference_request_success"),),
        mistaken=(("running_requests", Selector("nv_inference_exec_count")),),
        model_labels=("model", "version"),
    ),
    EngineMapping(
        name="vllm",
        prefix="vllm:",
        queued_requests=(_value("vllm:num_requests_waiting"),),
        running_requests=(_value("vllm:num_requests_running"),),
        kv_utilization=(_value("vllm:kv_cache_usage_perc"), _value("vllm:gpu_cache_usage_perc")),
        block_size=(_label("vllm:cache_config_info", "block_size"),),
        num_blocks=(_label("vllm:cache_config_info", "num_gpu_blocks"),),
        lora=LoraLabels(
            selector=Selector("vllm:lora_requests_info"),
            running="running_lora_adapters",
            waiting="waiting_lora_adapters",
            max_adapters="max_lora",
        ),
        completions=(Selector("vllm:request_success_total"),),
        gauges_come_late=True,  # with several API servers
    ),
    EngineMapping(
        name="sglang",
        prefix="sglang:",
        options="--enable-metrics",
        queued_requests=(_value("sglang:num_queue_reqs"),),
        running_requests=(_value("sglang:num_running_reqs"),),
        kv_utilization=(_value("sglang:token_usage"),),
        block_size=(_value("sglang:page_size"), _label("sglang:cache_config_info", "page_size")),
        num_blocks=(_value("sglang:num_pages"), _label("sglang:cache_config_info", "num_pages")),
        completions=(Selector("sglang:num_requests_total"),),
        gauges_come_late=True,
    ),
    EngineMapping(
        name="trtllm-serve",
        prefix="trtllm_",
        options="return_perf_metrics: true and enable_iter_perf_stats: true",
        queued_requests=(_value("trtllm_num_requests_waiting"),),
        running_requests=(_value("trtllm_num_requests_running"),),
        kv_utilization=(_value("trtllm_kv_cache_utilization"),),
        block_size=(_value("trtllm_kv_cache_tokens_per_block"),),
        num_blocks=(_value("trtllm_kv_cache_max_blocks"),),
        completions=(Selector("trtllm_request_success_total"),),
        gauges_come_late=True,
    ),
    EngineMapping(
        name="llamacpp",
        prefix="llamacpp:",
        options="--metrics",
        queued_requests=(_value("llamacpp:requests_deferred"),),
        running_requests=(_value("llamacpp:requests_processing"),),
        kv_utilization=(_value("llamacpp:kv_cache_usage_ratio"),),
        withdrawn=frozenset({"kv_utilization"}),
        # It counts no requests, but tokens of answers as these end.
        completions=(Selector("llamacpp:tokens_predicted_total"),),
    ),
    EngineMapping(
        name="tgi",
        prefix="tgi_",
        queued_requests=(_value("tgi_queue_size"),),
        running_requests=(_value("tgi_batch_current_size"),),
        completions=(Selector("tgi_request_success"), Selector("tgi_request_success_total")),
        gauges_come_late=True,
    ),
)

ENGINES: Mapping[str, EngineMapping] = MappingProxyType({mapping.name: mapping for mapping in _MAPPINGS})
"""All engines by name, in the order in which detection prefers them."""
