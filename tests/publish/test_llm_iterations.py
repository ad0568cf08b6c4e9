"""Rows of LLM.get_stats → what is to be published, batch by batch."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.publish.llm_iterations import LATE_ITERATIONS, QUIET_S, LlmIterations
from tidegate.publish.statistics import BatchManagerStatistics, parse_statistics

RECORDED = {
    path.stem: json.loads(path.read_text())["row"] for path in (Path(__file__).parent / "recorded").glob("*.json")
}


def row(*, active: int, ended: int = 0, scheduled: int | None = None, used: int = 10, **more: Any) -> dict[str, Any]:
    """One iteration as TensorRT-LLM writes it, of an LLM with 100 blocks."""
    return {
        "numActiveRequests": active,
        "numQueuedRequests": 0,
        "numCompletedRequests": ended,
        "kvCacheStats": {"maxNumBlocks": 100, "usedNumBlocks": used},
        "inflightBatchingStats": {"numScheduledRequests": active if scheduled is None else scheduled},
        **more,
    }


def transfer(milliseconds: object, stage: str = "GENERATION_COMPLETE") -> dict[str, Any]:
    """One request whose prefill another server did."""
    return {"id": 1, "stage": stage, "disServingStats": {"kvCacheTransferMS": milliseconds, "kvCacheSize": 9}}


def requests(statistics: BatchManagerStatistics | None) -> tuple[int | None, int | None, int | None] | None:
    if statistics is None:
        return None
    return statistics.active_requests, statistics.scheduled_requests, statistics.waiting_requests


@pytest.mark.parametrize("encode", [lambda row: row, json.dumps, lambda row: json.dumps(row).encode()])
def test_the_newest_of_the_pending_iterations_counts_however_they_are_written(encode: Any) -> None:
    newest = row(active=6, scheduled=4)

    statistics = LlmIterations().take([encode(row(active=9)), encode(newest)], 0)

    assert statistics == parse_statistics(newest)


@pytest.mark.parametrize("name", RECORDED)
def test_what_real_servers_said_is_published_as_it_is(name: str) -> None:
    statistics = LlmIterations().take([RECORDED[name]], 0)

    assert statistics == parse_statistics(RECORDED[name])
    assert statistics != BatchManagerStatistics()


def test_the_recorded_queue_outside_of_active_waits() -> None:
    statistics = LlmIterations().take([RECORDED["pytorch_3376"]], 0)

    assert statistics is not None
    assert (statistics.waiting_requests, statistics.kv_utilization) == (7, 5495 / 7240)


@pytest.mark.parametrize("junk", ["", "{", "[" * 100_000, "[]", "null", b"\xff", None, 7, [], {}])
def test_what_is_no_row_is_passed_over(junk: object) -> None:
    iterations = LlmIterations()

    assert iterations.take([junk], 0) is None
    assert not iterations.any_seen
    assert requests(iterations.take([row(active=2), junk], 1)) == (2, 2, 0)


def test_an_llm_whose_last_request_ended_is_at_rest_once_it_says_nothing_more() -> None:
    iterations = LlmIterations()
    iterations.take([row(active=2, ended=1), row(active=1, ended=1, used=7)], 0)

    idle = iterations.take([], 0.1)

    assert requests(idle) == (0, 0, 0)
    assert idle is not None
    assert idle.used_kv_blocks == 7  # blocks that hold reusable prefixes stay
    assert iterations.take([], 0.2) is None  # nothing new


def test_an_llm_with_requests_left_is_never_at_rest_however_long_it_is_silent() -> None:
    iterations = LlmIterations()
    iterations.take([row(active=5, ended=1)], 0)

    assert [iterations.take([], second) for second in (0.1, QUIET_S, 600)] == [None] * 3


def test_requests_that_wait_keep_an_llm_from_rest() -> None:
    iterations = LlmIterations()
    iterations.take([row(active=1, ended=1, numQueuedRequests=3)], 0)

    assert iterations.take([], 600) is None


def test_requests_that_the_overlap_scheduler_still_counts_are_gone_after_a_silence() -> None:
    # It begins an iteration before it has seen whom the one before ended: two requests that end one after the other
    # leave "2 active, 1 ended" behind.
    iterations = LlmIterations()
    iterations.take([row(active=2), row(active=2, ended=1), row(active=2, ended=1)], 0)

    assert iterations.take([], QUIET_S / 2) is None
    assert requests(iterations.take([], QUIET_S)) == (0, 0, 0)


def test_requests_that_ended_long_before_are_not_counted_again() -> None:
    iterations = LlmIterations()
    iterations.take([row(active=2, ended=1), *[row(active=1)] * LATE_ITERATIONS], 0)

    assert iterations.take([], 600) is None


def test_the_next_request_wakes_an_llm_at_rest() -> None:
    iterations = LlmIterations()
    iterations.take([row(active=1, ended=1)], 0)
    iterations.take([], 1)

    assert requests(iterations.take([row(active=3, scheduled=2)], 2)) == (3, 2, 1)
    assert iterations.take([], 9) is None


def test_requests_that_ended_before_a_rest_do_not_end_those_that_came_after_it() -> None:
    iterations = LlmIterations()
    iterations.take([row(active=1, ended=1)], 0)
    iterations.take([], 1)
    iterations.take([row(active=1)], 2)

    assert iterations.take([], 600) is None


def test_ranks_are_added_up_and_rest_with_the_first() -> None:
    iterations = LlmIterations()
    ranks = [row(active=3, scheduled=2, used=used, attentionDpRank=rank) for rank, used in enumerate([30, 80])]

    statistics = iterations.take([*ranks, *ranks], 0)
    iterations.take([row(active=1, ended=1, attentionDpRank=0), row(active=1, attentionDpRank=1)], 1)
    between = iterations.take([], 1.5)  # The second rank may be in the middle of a long iteration.
    idle = iterations.take([], 2)

    assert between is None
    assert statistics is not None
    assert requests(statistics) == (6, 4, 2)
    assert (statistics.kv_utilization, statistics.max_kv_blocks) == (0.8, 200)
    assert requests(idle) == (0, 0, 0)


def test_every_iteration_counts_for_the_transfers_of_disaggregated_serving() -> None:
    iterations = LlmIterations()
    first = row(active=3, requestStats=[transfer(7.5), transfer(100, stage="GENERATION_IN_PROGRESS")])
    second = row(active=2, requestStats=[transfer(2), {"stage": "GENERATION_COMPLETE", "disServingStats": None}])

    statistics = iterations.take([first, second, row(active=1)], 0)
    later = iterations.take([row(active=1, ended=1, requestStats=[transfer(1)])], 1)
    idle = iterations.take([], 2)

    seen = [(one.disaggregated_requests_total, one.kv_transfer_ms_total) for one in (statistics, later, idle) if one]
    assert seen == [(2, 9.5), (3, 10.5), (3, 10.5)]


@pytest.mark.parametrize(
    "requests",
    [None, [], "all", [None], [{}], [transfer(None)], [transfer(-1)], [transfer("7")], [transfer(10**400)]],
)
def test_without_figures_of_transfers_there_is_no_disaggregated_serving(requests: object) -> None:
    statistics = LlmIterations().take([row(active=1, requestStats=requests)], 0)

    assert statistics is not None
    assert (statistics.disaggregated_requests_total, statistics.kv_transfer_ms_total) == (None, None)


_JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.binary(max_size=9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(sorted(row(active=1))), inner)
    ),
    max_leaves=9,
)
_NAMES = ["attentionDpRank", "rank", "requestStats", *row(active=1)]


@given(st.lists(st.lists(st.one_of(_JUNK, st.dictionaries(st.sampled_from(_NAMES), _JUNK)), max_size=4), max_size=4))
def test_whatever_an_llm_returns_is_taken(batches: list[list[object]]) -> None:
    iterations = LlmIterations()

    for number, rows in enumerate([*batches, []]):
        statistics = iterations.take(rows, number * 10)
        assert statistics is None or (statistics.kv_utilization or 0) <= 1
