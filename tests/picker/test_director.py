"""The decision, whole: where bursts go, what is counted, and what a pick costs."""

import sys
from collections import Counter
from types import FrameType
from typing import Any

import numpy as np
import pytest

from factories import NOW, endpoint, pool_of, request, signals
from tidegate.picker.director import Decision, Director
from tidegate.picker.profile import default_profile
from tidegate.pool.row import VISIBILITY_LAG_S
from tidegate.pool.table import Pool


def director_of(pool: Pool, *, destinations: int = 1, seed: int = 0, id_prefix: str = "d") -> Director:
    rng = np.random.default_rng(seed)
    return Director(pool, default_profile(), destinations=destinations, tracked=True, rng=rng, id_prefix=id_prefix)


def decide(director: Director, now: float = NOW, prompt_tokens: float = 0.0) -> Decision:
    decision = director.decide(request(prompt_tokens=prompt_tokens), now)
    assert decision is not None
    return decision


def burst(pool: Pool, size: int, now: float = NOW, **options: Any) -> list[int]:
    """Send `size` requests at once; return how many each endpoint got."""
    director = director_of(pool, **options)
    got = Counter(decide(director, now).destinations[0] for _ in range(size))
    return [got[member.address] for member in pool.endpoints]


class TestBursts:
    @pytest.mark.parametrize(
        "pool",
        [
            pytest.param(lambda: pool_of(queued=[0] * 5, running=[0] * 5, kv=[0.0] * 5), id="idle"),
            pytest.param(lambda: pool_of(queued=[7] * 5, running=[64] * 5, kv=[0.9] * 5), id="busy"),
            pytest.param(lambda: pool_of(queued=[0] * 5), id="queue only"),
            pytest.param(lambda: pool_of(kv=[0.5] * 5), id="cache only"),
            pytest.param(lambda: pool_of(queued=[None] * 5), id="silent"),
        ],
    )
    def test_a_burst_between_two_scrapes_spreads_evenly(self, pool) -> None:
        assert burst(pool(), 100) == [20] * 5

    def test_a_burst_over_a_stale_pool_spreads_evenly(self) -> None:
        pool = pool_of(queued=[0, 9, 50], running=[1, 2, 3], kv=[0.1, 0.5, 0.9])

        assert burst(pool, 99, now=NOW + 1e6) == [33] * 3

    def test_a_burst_fills_the_shorter_queues_first(self) -> None:
        assert burst(pool_of(queued=[0, 6, 12]), 30) == [16, 10, 4]

    def test_a_scrape_in_the_middle_of_a_burst_does_not_make_anyone_look_idle(self) -> None:
        pool = pool_of(queued=[0, 0])
        first = burst(pool, 20, now=NOW + 1)
        # e0's scrape was asked for while the burst was still on its way, and shows none of it.
        asked_at = NOW + 1 + VISIBILITY_LAG_S / 2
        pool.report("e0", signals(queued=0, at=asked_at), started_at=asked_at)

        second = burst(pool, 20, now=asked_at, id_prefix="second")

        assert first == second == [10, 10]

    def test_what_ended_makes_room_at_once(self) -> None:
        pool = pool_of(queued=[0, 0])
        director = director_of(pool)
        sent = [decide(director) for _ in range(20)]
        for decision in sent:
            if decision.destinations[0] == endpoint(1).address:
                pool.release(decision.id, now=NOW, answered_by=decision.destinations[0])

        assert burst(pool, 10, id_prefix="second") == [0, 10]


class TestDecisions:
    def test_the_first_destination_is_counted_and_no_other(self) -> None:
        pool = pool_of(queued=[9, 0, 4])

        decision = decide(director_of(pool, destinations=2))

        assert decision.destinations == [endpoint(1).address, endpoint(2).address]
        assert pool.view(NOW).in_flight.tolist() == [0, 1, 0]

    def test_the_prompt_is_counted_into_the_cache_it_will_fill(self) -> None:
        pool = pool_of(queued=[0], kv=[0.25], num_blocks=100, block_size=10)

        decide(director_of(pool), prompt_tokens=500.0)

        assert pool.view(NOW).kv_utilization.tolist() == [0.75]

    @pytest.mark.parametrize("destinations", [2, 3, 7])
    def test_fallbacks_differ_from_the_first_and_from_each_other(self, destinations) -> None:
        director = director_of(pool_of(queued=[0, 0, 0]), destinations=destinations)

        for _ in range(50):
            named = decide(director).destinations
            assert len(named) == len(set(named)) == min(destinations, 3)

    def test_a_single_endpoint_has_no_fallback(self) -> None:
        assert decide(director_of(pool_of(queued=[0]), destinations=2)).destinations == [endpoint(0).address]

    def test_nothing_eligible_is_no_decision_and_counts_nothing(self) -> None:
        pool = pool_of(queued=[0, 0])
        for name in ("e0", "e1"):
            pool.miss(name, error="refused", reachable=False, now=NOW)

        assert director_of(pool).decide(request(), NOW) is None
        assert pool.view(NOW).in_flight.tolist() == [0, 0]

    def test_an_empty_pool_is_no_decision(self) -> None:
        assert director_of(pool_of()).decide(request(), NOW) is None

    def test_every_decision_has_an_id_of_its_own_that_names_its_process(self) -> None:
        pool = pool_of(queued=[0, 0])
        one, two = director_of(pool, id_prefix="one-"), director_of(pool, id_prefix="two-")

        ids = [decide(director).id for director in (one, two) for _ in range(50)]

        assert len(set(ids)) == 100
        assert [id_[:4] for id_ in ids] == ["one-"] * 50 + ["two-"] * 50

    def test_an_outcome_with_the_decisions_id_takes_the_request_back(self) -> None:
        pool = pool_of(queued=[0, 0])
        decision = decide(director_of(pool))

        assert pool.release(decision.id, now=NOW, answered_by=decision.destinations[0]) is True
        assert pool.view(NOW).in_flight.tolist() == [0, 0]

    def test_the_same_seed_and_reports_give_the_same_decisions(self) -> None:
        runs = []
        for _ in range(2):
            director = director_of(pool_of(queued=[0] * 20), destinations=3, seed=11)
            runs.append([decide(director).destinations for _ in range(50)])

        assert runs[0] == runs[1]


def python_steps(director: Director) -> int:
    """Return how many bytecode instructions one decision takes."""
    steps = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        director.decide(request(), NOW)
    finally:
        sys.settrace(before)
    return steps


@pytest.mark.parametrize("left_out", [0, 1])
def test_a_pick_does_no_python_work_per_endpoint(left_out) -> None:
    costs = []
    for size in (10, 10_000):
        pool = pool_of(queued=[3] * size, running=[None, *[1] * (size - 1)], kv=[0.5] * size)
        for number in range(left_out):
            pool.miss(f"e{number}", error="refused", reachable=False, now=NOW)
        director = director_of(pool, destinations=2)
        decide(director)  # the first call fills NumPy's and the interpreter's caches
        costs.append(python_steps(director))

    assert costs[0] == costs[1] > 100
