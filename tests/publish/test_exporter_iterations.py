"""trtllm-serve's JSON statistics as the load of a server: drained by reading, and empty where nothing happened."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.protocol.errors import ScrapeError, ScrapeFailure
from tidegate.protocol.signals import LoadSignals
from tidegate.publish.exporter.iterations import MAX_SILENCE_S, IterationStatistics


def row(*, active: int, scheduled: int, used: int = 0, **more: Any) -> dict[str, Any]:
    """One iteration as TensorRT-LLM writes it, of a server with 100 blocks."""
    return {
        "iter": 1,
        "numActiveRequests": active,
        "kvCacheStats": {"maxNumBlocks": 100, "usedNumBlocks": used, "tokensPerBlock": 64},
        "inflightBatchingStats": {"numScheduledRequests": scheduled},
        **more,
    }


def body(*rows: object) -> bytes:
    return json.dumps(rows).encode()


def load(*, queued: int, running: int, kv: float, at: float, blocks: int = 100) -> LoadSignals:
    return LoadSignals(
        queued_requests=queued,
        running_requests=running,
        kv_utilization=kv,
        block_size=64,
        num_blocks=blocks,
        observed_at=at,
    )


def test_the_last_of_the_iterations_that_piled_up_counts() -> None:
    statistics = IterationStatistics()

    signals = statistics.parse(
        body(row(active=9, scheduled=9, used=90), row(active=6, scheduled=4, used=25, numQueuedRequests=3)), 7.0
    )

    assert signals == load(queued=5, running=4, kv=0.25, at=7.0)


def test_the_ranks_of_one_iteration_are_added_up() -> None:
    ranks = [row(active=5, scheduled=4, used=used, attentionDpRank=rank) for rank, used in enumerate([30, 80])]

    signals = IterationStatistics().parse(body(*ranks), 7.0)

    assert signals == load(queued=2, running=8, kv=0.8, at=7.0, blocks=200)


def test_between_two_iterations_the_last_one_stands_with_its_age() -> None:
    statistics = IterationStatistics()
    busy = statistics.parse(body(row(active=6, scheduled=4)), 7.0)

    assert statistics.parse(b"[]", 7.0 + MAX_SILENCE_S) == busy


def test_when_the_iterations_stop_with_requests_left_nothing_is_known() -> None:
    statistics = IterationStatistics()
    statistics.parse(body(row(active=6, scheduled=4)), 7.0)

    with pytest.raises(ScrapeError, match="no iteration for 2 s with requests left") as caught:
        statistics.parse(b"[]", 7.1 + MAX_SILENCE_S)

    assert caught.value.reason is ScrapeFailure.NO_METRICS


def test_after_the_iteration_that_ended_the_last_requests_the_server_is_idle_for_as_long_as_it_likes() -> None:
    statistics = IterationStatistics()
    statistics.parse(body(row(active=2, scheduled=2, numCompletedRequests=2)), 7.0)

    assert statistics.parse(b"[]", 7.1) == load(queued=0, running=0, kv=0.0, at=7.1)
    assert statistics.parse(b"[]", 9000.0) == load(queued=0, running=0, kv=0.0, at=9000.0)


def test_of_a_server_that_comes_after_it_nothing_is_known() -> None:
    statistics = IterationStatistics()
    statistics.parse(body(row(active=2, scheduled=2, used=90, numCompletedRequests=2)), 7.0)
    statistics.parse(b"[]", 7.1)

    statistics.forget()

    with pytest.raises(ScrapeError, match="no iteration statistics yet"):
        statistics.parse(b"[]", 7.2)


def test_requests_that_ended_in_earlier_iterations_are_no_longer_there_after_a_second() -> None:
    statistics = IterationStatistics()
    # The overlap scheduler counts a request once more in the iteration after the one that reported its end.
    overlapping = [
        row(active=2, scheduled=2, numCompletedRequests=1),
        row(active=2, scheduled=1, numCompletedRequests=1),
    ]
    busy = statistics.parse(body(*overlapping), 7.0)

    assert statistics.parse(b"[]", 7.5) == busy
    assert statistics.parse(b"[]", 8.0) == load(queued=0, running=0, kv=0.0, at=8.0)


def test_before_the_first_iteration_nothing_is_known_and_the_option_is_named() -> None:
    with pytest.raises(ScrapeError, match="enable_iter_perf_stats: true"):
        IterationStatistics().parse(b"[]", 7.0)


def test_an_unknown_count_of_one_rank_makes_the_sum_unknown() -> None:
    ranks = [row(active=5, scheduled=4, attentionDpRank=0), {"numActiveRequests": 5, "attentionDpRank": 1}]

    signals = IterationStatistics().parse(body(*ranks), 7.0)

    assert (signals.queued_requests, signals.running_requests, signals.num_blocks) == (None, None, None)


@pytest.mark.parametrize(
    "bad", [b"", b"[", b"{}", b"[1]", b'[{"a": 1}]', b"[" * 100_000, b'["numActiveRequests"]', b'["\x89"]']
)
def test_what_is_no_array_of_statistics_is_refused(bad: bytes) -> None:
    with pytest.raises(ScrapeError, match="JSON"):
        IterationStatistics().parse(bad, 7.0)


def test_a_time_beyond_all_numbers_is_passed_over() -> None:
    ended = {"stage": "GENERATION_COMPLETE", "disServingStats": {"kvCacheTransferMS": 10**400}}

    signals = IterationStatistics().parse(body(row(active=6, scheduled=4, requestStats=[ended])), 7.0)

    assert signals.queued_requests == 2


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_ROWS = st.dictionaries(
    st.sampled_from([*row(active=0, scheduled=0), "attentionDpRank", "numQueuedRequests"]), _VALUES, max_size=6
)


@given(st.lists(_ROWS | _VALUES, max_size=4))
def test_any_json_is_a_load_or_refused(document: list[object]) -> None:
    statistics = IterationStatistics()
    try:
        signals = statistics.parse(json.dumps(document).encode(), 7.0)
    except ScrapeError:
        return
    assert signals.observed_at == 7.0
    assert signals.queued_requests is None or signals.queued_requests >= 0
    assert signals.kv_utilization is None or 0 <= signals.kv_utilization <= 1


def test_a_row_that_waited_for_somebody_to_ask_does_not_show_an_idle_server_as_busy() -> None:
    signals = IterationStatistics().parse(body(row(active=1, scheduled=1, numCompletedRequests=1)), 7.0)

    assert signals == load(queued=0, running=0, kv=0.0, at=7.0)
