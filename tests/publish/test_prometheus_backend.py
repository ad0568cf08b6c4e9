"""Series → exposition, checked against prometheus_client and a real Triton."""

from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tidegate.publish.families import STATISTICS_FAMILIES, Kind
from tidegate.publish.prometheus import PrometheusBackend
from tidegate.publish.reporter import Reporter
from tidegate.publish.statistics import BatchManagerStatistics

GOLDEN = Path(__file__).parent / "golden" / "inflight.prom"
REAL_TRITON = Path(__file__).parents[1] / "fixtures" / "metrics" / "triton" / "loaded.txt"

LOADED = BatchManagerStatistics(
    active_requests=8,
    max_requests=512,
    scheduled_requests=4,
    context_requests=0,
    waiting_requests=4,
    cpu_memory_bytes=0,
    gpu_memory_bytes=1610236,
    pinned_memory_bytes=0,
    max_kv_blocks=96,
    free_kv_blocks=72,
    used_kv_blocks=24,
    tokens_per_kv_block=32,
    reused_kv_blocks=0,
    kv_utilization=0.25,
    inflight_context_tokens=0,
    generation_requests=4,
    micro_batch_id=0,
    timestamp_us=1795503984354677,
    iteration=42,
)
"""What the server of the fixture `triton/loaded.txt` reported."""


def published(*statistics: BatchManagerStatistics, model: str = "tensorrt_llm") -> PrometheusBackend:
    backend = PrometheusBackend()
    reporter = Reporter(backend, model=model, version="1")
    for one in statistics:
        reporter.report(one)
    return backend


def parsed(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    # prometheus_client's parser appends _total to the samples of a counter by itself.
    return {
        (sample.name.removesuffix("_total"), frozenset(sample.labels.items())): sample.value
        for family in parsed(text).values()
        for sample in family.samples
    }


def test_the_exposition_is_the_golden_file_byte_for_byte() -> None:
    backend = PrometheusBackend()
    reporter = Reporter(backend, model='acme/"chat"\\v2\n', version="1")
    reporter.report(replace(LOADED, kv_utilization=1 / 3, kv_transfer_ms_total=12.5, disaggregated_requests_total=3))
    reporter.observe(input_tokens=10, output_tokens=11)
    reporter.observe(input_tokens=1000, output_tokens=1001)

    assert backend.exposition() == GOLDEN.read_bytes()


def test_the_exposition_agrees_with_the_real_triton_line_by_line() -> None:
    real = {line for line in REAL_TRITON.read_text().splitlines() if "nv_trt_llm_" in line}

    assert set(published(LOADED).exposition().decode().splitlines()) == real


def test_prometheus_client_reads_back_what_was_published() -> None:
    model = 'quo"te back\\slash new\nline, {brace="x"} ünï'
    families = parsed(published(LOADED, model=model).exposition().decode())

    for family in STATISTICS_FAMILIES:
        known = {label: getattr(LOADED, name) for label, name in family.fields.items()}
        samples = families[family.name].samples if family.name in families else []
        assert {sample.labels["model"] for sample in samples} <= {model}
        assert {sample.labels[family.label]: sample.value for sample in samples} == {
            label: value for label, value in known.items() if value is not None
        }


def test_a_counter_keeps_its_exact_name() -> None:
    backend = published(BatchManagerStatistics(disaggregated_requests_total=3))

    exposition = backend.exposition().decode()

    assert "# TYPE nv_trt_llm_disaggregated_serving_metrics counter\n" in exposition
    assert "_total" not in exposition
    assert "_created" not in exposition


def test_a_registry_exposes_the_same_samples_under_the_same_names() -> None:
    backend = published(LOADED, BatchManagerStatistics(disaggregated_requests_total=3))
    Reporter(backend, model="tensorrt_llm", version="1").observe(input_tokens=70, output_tokens=3000)
    registry = CollectorRegistry()
    registry.register(backend)

    through_registry = generate_latest(registry).decode()

    assert "metrics_total" not in through_registry
    assert samples(through_registry) == samples(backend.exposition().decode())


def test_histogram_buckets_are_cumulative_and_include_their_bound() -> None:
    backend = PrometheusBackend()
    reporter = Reporter(backend, model="m", version="1")
    for tokens in (0, 10, 11, 100, 1000, 5000):
        reporter.observe(input_tokens=tokens)

    (family,) = backend.collect()

    assert family.type == Kind.HISTOGRAM
    buckets = [(sample.labels["le"], sample.value) for sample in family.samples if sample.name.endswith("_bucket")]
    assert buckets == [("10", 2), ("50", 3), ("100", 4), ("500", 4), ("1000", 5), ("+Inf", 6)]
    assert [(sample.name[-6:], sample.value) for sample in family.samples[-2:]] == [("en_sum", 6121), ("_count", 6)]


def test_nothing_reported_is_an_empty_exposition() -> None:
    assert published().exposition() == b""
    assert published(BatchManagerStatistics()).exposition() == b""


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (3.0, "3"), (2**62, str(2**62)), (0.1, "0.1"), (1e-9, "1e-09")])
def test_values_are_exact_and_whole_numbers_have_no_point(value: float, text: str) -> None:
    exposition = published(BatchManagerStatistics(kv_utilization=value)).exposition().decode()

    assert exposition.splitlines()[-1].rsplit(" ", 1)[1] == text
