"""Statistics JSON → BatchManagerStatistics."""

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.publish.statistics import BatchManagerStatistics, combine_ranks, emptied, is_at_rest, parse_statistics

ISSUE_3376: dict[str, Any] = {  # TensorRT-LLM issue #3376: requests wait outside "active"
    "iter": 58,
    "timestamp": "",
    "numActiveRequests": 1,
    "numQueuedRequests": 7,
    "numCompletedRequests": 0,
    "maxNumActiveRequests": 2048,
    "cpuMemUsage": 0,
    "gpuMemUsage": 71024246784,
    "pinnedMemUsage": 0,
    "kvCacheStats": {
        "maxNumBlocks": 7240,
        "freeNumBlocks": 1745,
        "usedNumBlocks": 5495,
        "tokensPerBlock": 64,
        "reusedBlocks": 12,
        "cacheHitRate": 0.1,
    },
    "inflightBatchingStats": {
        "numScheduledRequests": 1,
        "numContextRequests": 0,
        "numGenRequests": 1,
        "numPausedRequests": 0,
        "numCtxTokens": 0,
        "microBatchId": 0,
        "avgNumDecodedTokensPerIter": 0.0,
    },
    "staticBatchingStats": None,
    "specDecodingStats": None,
}

DISPLAY_NAMES: dict[str, Any] = {
    "Active Request Count": 9,
    "Max Request Count": 512,
    "Scheduled Requests": 4,
    "Context Requests": 1,
    "Waiting Requests": 6,
    "Runtime CPU Memory Usage": 1,
    "Runtime GPU Memory Usage": 2,
    "Runtime Pinned Memory Usage": 3,
    "Max KV cache blocks": 100,
    "Free KV cache blocks": 60,
    "Used KV cache blocks": 40,
    "Tokens per KV cache block": 64,
    "Reused KV cache blocks": 5,
    "Fraction used KV cache blocks": 0.41,
    "KV cache transfer time": 12.5,
    "Request count": 8,
    "Total Context Tokens": 33,
    "Generation Requests": 3,
    "MicroBatch ID": 7,
    "Paused Requests": 2,
    "Timestamp": "11-14-2023 12:00:00.123456",
    "Iteration Counter": 77,
}

_JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.binary(max_size=5),
    st.just(10**400),
    st.just("01-01-0001 00:00:00.000000"),
    st.just("12-31-9999 23:59:59.999999"),
    st.lists(st.integers(), max_size=2),
)
_KEYS = st.sampled_from([*ISSUE_3376, *DISPLAY_NAMES])
_SECTION_KEYS = st.sampled_from([*ISSUE_3376["kvCacheStats"], *ISSUE_3376["inflightBatchingStats"], "emptyGenSlots"])
_SECTIONS = st.dictionaries(st.one_of(_SECTION_KEYS, st.text(max_size=3)), _JUNK, max_size=8)


@pytest.fixture
def berlin() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "CET-1"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def test_iteration_statistics_count_requests_that_queue_outside_active() -> None:
    assert parse_statistics(ISSUE_3376) == BatchManagerStatistics(
        active_requests=1,
        max_requests=2048,
        scheduled_requests=1,
        context_requests=0,
        queued_requests=7,
        completed_requests=0,
        waiting_requests=7,
        cpu_memory_bytes=0,
        gpu_memory_bytes=71024246784,
        pinned_memory_bytes=0,
        max_kv_blocks=7240,
        free_kv_blocks=1745,
        used_kv_blocks=5495,
        tokens_per_kv_block=64,
        reused_kv_blocks=12,
        kv_utilization=5495 / 7240,
        inflight_context_tokens=0,
        generation_requests=1,
        micro_batch_id=0,
        paused_requests=0,
        iteration=58,
    )


@pytest.mark.usefixtures("berlin")
def test_display_names_give_every_figure_and_their_own_composites() -> None:
    assert parse_statistics(DISPLAY_NAMES) == BatchManagerStatistics(
        active_requests=9,
        max_requests=512,
        scheduled_requests=4,
        context_requests=1,
        waiting_requests=6,  # not 9 - 4
        cpu_memory_bytes=1,
        gpu_memory_bytes=2,
        pinned_memory_bytes=3,
        max_kv_blocks=100,
        free_kv_blocks=60,
        used_kv_blocks=40,
        tokens_per_kv_block=64,
        reused_kv_blocks=5,
        kv_utilization=0.41,  # not 40 / 100
        kv_transfer_ms_total=12.5,
        disaggregated_requests_total=8,
        inflight_context_tokens=33,
        generation_requests=3,
        micro_batch_id=7,
        paused_requests=2,
        timestamp_us=1_699_959_600_123_456,  # 11:00 UTC
        iteration=77,
    )


def test_composites_are_derived_when_display_names_lack_them() -> None:
    without = {key: value for key, value in DISPLAY_NAMES.items() if not key.startswith(("Waiting", "Fraction"))}

    statistics = parse_statistics(without)

    assert (statistics.waiting_requests, statistics.kv_utilization) == (5, 0.4)


@pytest.mark.parametrize(
    "raw",
    [
        {"numActiveRequests": 4, "numQueuedRequests": 2},
        {"inflightBatchingStats": {"numScheduledRequests": 4}, "numQueuedRequests": 2},
        {"kvCacheStats": {"usedNumBlocks": 4}},
        {"kvCacheStats": {"maxNumBlocks": 4}},
        {"kvCacheStats": None, "inflightBatchingStats": None, "staticBatchingStats": None},
    ],
)
def test_a_composite_without_its_ingredients_is_unknown_not_zero(raw: dict[str, Any]) -> None:
    statistics = parse_statistics(raw)

    assert statistics.waiting_requests is None
    assert statistics.kv_utilization is None


def test_inflight_figures_win_over_an_all_zero_static_section() -> None:
    zeros = {"numScheduledRequests": 0, "numContextRequests": 0, "numCtxTokens": 0, "numGenTokens": 0}

    statistics = parse_statistics({**ISSUE_3376, "staticBatchingStats": {**zeros, "emptyGenSlots": 0}})

    assert statistics == parse_statistics(ISSUE_3376)


@pytest.mark.parametrize("inflight", [None, {}])
def test_static_batching_alone_fills_the_static_figures(inflight: object) -> None:
    static = {"numScheduledRequests": 2, "numContextRequests": 1, "numCtxTokens": 30, "numGenTokens": 20}

    statistics = parse_statistics(
        {"inflightBatchingStats": inflight, "staticBatchingStats": {**static, "emptyGenSlots": 4}}
    )

    assert statistics == BatchManagerStatistics(
        scheduled_requests=2,
        context_requests=1,
        static_context_tokens=30,
        static_generation_tokens=20,
        empty_generation_slots=4,
    )


def test_a_flat_context_token_count_belongs_to_static_batching_in_static_company() -> None:
    assert parse_statistics({"Total Context Tokens": 3, "Empty Generation Slots": 1}) == BatchManagerStatistics(
        static_context_tokens=3, empty_generation_slots=1
    )


@pytest.mark.parametrize("junk", [None, True, "7", -1, 1.5, float("nan"), float("inf"), 10**400, 2**63, [7], {"n": 7}])
def test_a_figure_that_is_none_counts_as_missing(junk: object) -> None:
    statistics = parse_statistics({**ISSUE_3376, "numActiveRequests": junk, "kvCacheStats": {"usedNumBlocks": junk}})

    assert statistics.active_requests is None
    assert statistics.used_kv_blocks is None
    assert statistics.scheduled_requests == 1


@pytest.mark.parametrize("junk", [True, "0.5", -0.1, 1.01, 25, float("nan"), float("inf")])
def test_a_fraction_that_is_none_is_derived_instead(junk: object) -> None:
    assert parse_statistics({**DISPLAY_NAMES, "Fraction used KV cache blocks": junk}).kv_utilization == 0.4


def test_a_whole_number_written_as_a_float_is_a_count() -> None:
    statistics = parse_statistics({"numActiveRequests": 7.0})

    assert statistics.active_requests == 7
    assert isinstance(statistics.active_requests, int)


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("01-01-1970 01:00:00.000000", 0),
        ("01-02-1970 01:00:00.000001", 86_400_000_001),
        ("07-04-2025 12:30:59.999999", 1_751_628_659_999_999),
        ("01-01-1970 00:59:59.999999", None),
        ("", None),
        ("2025-07-04 12:30:59", None),
        ("13-01-2025 00:00:00.000000", None),
        ("01-01-0001 00:00:00.000000", None),
        ("07-04-2025 12:30:59.999999" + " " * 10_000_000, None),
        (1_751_628_659, None),
    ],
)
def test_a_timestamp_is_local_time_to_the_microsecond(text: object, microseconds: int | None) -> None:
    assert parse_statistics({"timestamp": text}).timestamp_us == microseconds
    assert parse_statistics({"Timestamp": text}).timestamp_us == microseconds


@given(st.dictionaries(st.one_of(_KEYS, st.text(max_size=5), st.integers()), st.one_of(_JUNK, _SECTIONS), max_size=30))
def test_any_mapping_gives_statistics_within_their_ranges(raw: dict[Any, Any]) -> None:
    statistics = parse_statistics(raw)

    for field in BatchManagerStatistics.__dataclass_fields__:
        value = getattr(statistics, field)
        assert value is None or value >= 0
    assert statistics.kv_utilization is None or statistics.kv_utilization <= 1


def test_after_the_iteration_in_which_the_last_requests_ended_the_batch_manager_is_at_rest() -> None:
    last = parse_statistics(ISSUE_3376 | {"numQueuedRequests": 0, "numCompletedRequests": 1})

    idle = emptied(last)

    assert is_at_rest(last)
    assert (last.active_requests, last.scheduled_requests, last.generation_requests) == (1, 1, 1)
    assert (idle.active_requests, idle.scheduled_requests, idle.generation_requests, idle.waiting_requests) == (0,) * 4
    assert (idle.used_kv_blocks, idle.max_requests, idle.iteration) == (5495, 2048, 58)
    assert idle.static_context_tokens is None


@pytest.mark.parametrize(
    "last",
    [
        {"numActiveRequests": 2, "numCompletedRequests": 1},
        {"numActiveRequests": 1, "numCompletedRequests": 1, "numQueuedRequests": 1},
        {"numActiveRequests": 1},
        {"numCompletedRequests": 1},
        {},
    ],
)
def test_with_requests_left_or_unknown_it_is_not_at_rest(last: dict[str, int]) -> None:
    assert not is_at_rest(parse_statistics(last))


def test_requests_that_ended_before_may_still_be_counted_as_active() -> None:
    last = parse_statistics({"numActiveRequests": 3, "numCompletedRequests": 1})

    assert not is_at_rest(last, ended_before=1)
    assert is_at_rest(last, ended_before=2)


def test_a_sum_over_ranks_is_unknown_where_one_of_them_does_not_say() -> None:
    known, unknown = parse_statistics(ISSUE_3376), parse_statistics(ISSUE_3376 | {"numActiveRequests": None})

    both = combine_ranks([known, known])
    partly = combine_ranks([known, unknown])

    assert (both.active_requests, both.waiting_requests, both.max_kv_blocks) == (2, 14, 14480)
    assert (both.kv_utilization, both.tokens_per_kv_block, both.iteration) == (5495 / 7240, 64, 58)
    assert (partly.active_requests, partly.waiting_requests, partly.scheduled_requests) == (None, None, 2)
    assert combine_ranks([known]) == known
