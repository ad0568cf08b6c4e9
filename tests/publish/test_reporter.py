"""BatchManagerStatistics → series."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from tidegate.publish.families import (
    INPUT_TOKENS_FAMILY,
    OUTPUT_TOKENS_FAMILY,
    STATISTICS_FAMILIES,
    Kind,
    MetricFamily,
)
from tidegate.publish.reporter import Reporter
from tidegate.publish.statistics import BatchManagerStatistics

REQUESTS = "nv_trt_llm_request_metrics"
DISAGGREGATED = "nv_trt_llm_disaggregated_serving_metrics"


@dataclass
class RecordedSeries:
    """Refuses what Triton's own series refuse: another kind's method, a counter that falls."""

    kind: Kind
    value: float = 0
    written: list[float] = field(default_factory=list)
    observed: list[float] = field(default_factory=list)

    def set(self, value: float, /) -> None:
        assert self.kind is Kind.GAUGE
        self.value = value
        self.written.append(value)

    def increment(self, value: float, /) -> None:
        assert self.kind is Kind.COUNTER
        assert value > 0
        self.value += value

    def observe(self, value: float, /) -> None:
        assert self.kind is Kind.HISTOGRAM
        self.observed.append(value)


class RecordingBackend:
    """Keeps series by family and the value of the family's label."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, str], RecordedSeries] = {}
        self.labels: list[Mapping[str, str]] = []

    def create_series(self, family: MetricFamily, labels: Mapping[str, str]) -> RecordedSeries:
        key = (family.name, labels[family.label])
        assert key not in self.series, "created twice"
        self.labels.append(labels)
        self.series[key] = RecordedSeries(family.kind)
        return self.series[key]

    def values(self, family: str) -> dict[str, float]:
        return {label: series.value for (name, label), series in self.series.items() if name == family}


@pytest.fixture
def backend() -> RecordingBackend:
    return RecordingBackend()


@pytest.fixture
def reporter(backend: RecordingBackend) -> Reporter:
    return Reporter(backend, model="llama", version="1")


def test_every_series_names_its_model_and_version(backend: RecordingBackend, reporter: Reporter) -> None:
    reporter.report(BatchManagerStatistics(waiting_requests=3))

    assert backend.labels == [{"request_type": "waiting", "model": "llama", "version": "1"}]


def test_one_of_several_instances_says_which_it_is(backend: RecordingBackend) -> None:
    reporter = Reporter(backend, model="llama", version="1", instance="0_1")

    reporter.report(BatchManagerStatistics(waiting_requests=3))
    reporter.observe(input_tokens=7)

    assert [labels["instance"] for labels in backend.labels] == ["0_1", "0_1"]


def test_only_what_changed_is_written(backend: RecordingBackend, reporter: Reporter) -> None:
    for active in (0, 4, 4, 0):
        reporter.report(BatchManagerStatistics(active_requests=active, waiting_requests=2))

    assert backend.series[REQUESTS, "active"].written == [4, 0]
    assert backend.series[REQUESTS, "waiting"].written == [2]


def test_a_missing_figure_neither_appears_nor_shifts_its_neighbours(
    backend: RecordingBackend, reporter: Reporter
) -> None:
    reporter.report(BatchManagerStatistics(active_requests=9, scheduled_requests=4, waiting_requests=5))

    assert backend.values(REQUESTS) == {"active": 9, "scheduled": 4, "waiting": 5}


def test_a_figure_that_goes_missing_keeps_its_series_as_it_was(backend: RecordingBackend, reporter: Reporter) -> None:
    reporter.report(BatchManagerStatistics(active_requests=9, scheduled_requests=4, context_requests=2))
    reporter.report(BatchManagerStatistics(active_requests=8, context_requests=1))

    assert backend.values(REQUESTS) == {"active": 8, "scheduled": 4, "context": 1}


def test_an_idle_server_that_says_zero_has_series_of_zero(backend: RecordingBackend, reporter: Reporter) -> None:
    reporter.report(BatchManagerStatistics(waiting_requests=0, kv_utilization=0.0))

    assert backend.values(REQUESTS) == {"waiting": 0}
    assert backend.values("nv_trt_llm_kv_cache_block_metrics") == {"fraction": 0}


def test_each_batching_publishes_only_its_own_family(backend: RecordingBackend, reporter: Reporter) -> None:
    reporter.report(BatchManagerStatistics(inflight_context_tokens=5))
    assert {name for name, _ in backend.series} == {"nv_trt_llm_inflight_batcher_metrics"}

    reporter.report(BatchManagerStatistics(static_context_tokens=6))
    assert backend.values("nv_trt_llm_v1_metrics") == {"total_context_tokens": 6}


def test_a_counter_follows_its_total_and_never_falls(backend: RecordingBackend, reporter: Reporter) -> None:
    seen = []
    for total in (0, 10, 10, 25, 3, 4):  # the server restarts before 3
        reporter.report(BatchManagerStatistics(disaggregated_requests_total=total))
        seen.append(backend.values(DISAGGREGATED)["request_count"])

    assert seen == [0, 10, 10, 25, 28, 29]


def test_two_counters_keep_their_own_totals(backend: RecordingBackend, reporter: Reporter) -> None:
    reporter.report(BatchManagerStatistics(disaggregated_requests_total=2, kv_transfer_ms_total=70.5))
    reporter.report(BatchManagerStatistics(disaggregated_requests_total=3, kv_transfer_ms_total=80.5))

    assert backend.values(DISAGGREGATED) == {"request_count": 3, "kv_cache_transfer_ms": 80.5}


def test_token_lengths_are_counted_where_they_are_known(backend: RecordingBackend, reporter: Reporter) -> None:
    reporter.observe(input_tokens=120, output_tokens=7)
    reporter.observe(input_tokens=0)
    reporter.observe(output_tokens=9)

    assert backend.series["nv_llm_input_token_len", "total_input_tokens"].observed == [120, 0]
    assert backend.series["nv_llm_output_token_len", "total_output_tokens"].observed == [7, 9]


def test_every_family_reads_fields_that_exist_and_no_field_twice() -> None:
    fields = [name for family in STATISTICS_FAMILIES for name in family.fields.values()]

    assert set(fields) == set(BatchManagerStatistics.__dataclass_fields__) - {"queued_requests", "completed_requests"}
    assert len(fields) == len(set(fields))


@pytest.mark.parametrize("family", [INPUT_TOKENS_FAMILY, OUTPUT_TOKENS_FAMILY])
def test_token_lengths_fall_into_the_buckets_of_the_triton_backend(family: MetricFamily) -> None:
    assert family.buckets == (10, 50, 100, 500, 1000)
