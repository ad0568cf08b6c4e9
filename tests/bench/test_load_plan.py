"""Seed and plan → arrivals, dealt to one or two targets."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.bench.lengths import parse_lengths
from tidegate.bench.load_plan import MAX_PROMPT_BYTES, LoadPlan, parse_variation, plan_errands
from tidegate.bench.target import parse_target
from tidegate.protocol.errors import ConfigError

PLAN = LoadPlan(
    seed=7,
    rate_per_s=20,
    variation=1.0,
    requests=None,
    duration_s=50,
    warm_up_s=5,
    input_tokens=parse_lengths("10..30"),
    output_tokens=parse_lengths("lognormal:20,0.5"),
)
ONE, OTHER = (parse_target(f"http://127.0.0.1:{port}", model="m") for port in (1, 2))


def squared_variation(plan: LoadPlan) -> float:
    gaps = np.diff([arrival.at_s for arrival in plan.arrivals()])
    return float((gaps.std() / gaps.mean()) ** 2)


@given(st.integers(0, 2**64), st.sampled_from([1.0, 3.0]), st.integers(0, 3))
def test_the_same_plan_gives_the_same_requests(seed: int, variation: float, shared: int) -> None:
    plan = replace(PLAN, seed=seed, variation=variation, duration_s=2, shared_prefix_tokens=shared, prefixes=2)
    try:
        arrivals = plan.arrivals()
    except ConfigError:  # bursts may leave two seconds empty
        return

    assert arrivals == plan.arrivals()
    assert [arrival.at_s for arrival in arrivals] == sorted(arrival.at_s for arrival in arrivals)


def test_another_seed_gives_others() -> None:
    first, second = PLAN.arrivals(), replace(PLAN, seed=8).arrivals()

    assert {arrival.at_s for arrival in first}.isdisjoint(arrival.at_s for arrival in second)
    assert {arrival.prompt for arrival in first}.isdisjoint(arrival.prompt for arrival in second)


def test_what_is_changed_leaves_the_rest_as_it_was() -> None:
    other = replace(PLAN, input_tokens=parse_lengths("5"), shared_prefix_tokens=3, prefixes=4)

    before, after = PLAN.arrivals(), other.arrivals()

    assert [arrival.at_s for arrival in before] == [arrival.at_s for arrival in after]
    assert [arrival.max_tokens for arrival in before] == [arrival.max_tokens for arrival in after]
    assert {arrival.prompt_tokens for arrival in after} == {8}


def test_requests_come_at_the_rate_through_the_warm_up_and_the_duration() -> None:
    times = [arrival.at_s for arrival in replace(PLAN, duration_s=500).arrivals()]

    assert 0 < times[0] < 5 < 500 < times[-1] < 505
    assert len(times) == pytest.approx(505 * 20, rel=0.05)


def test_so_many_requests_are_due_after_the_warm_up() -> None:
    times = [arrival.at_s for arrival in replace(PLAN, duration_s=None, requests=37).arrivals()]

    assert sum(at >= 5 for at in times) == 37
    assert sum(at < 5 for at in times) == pytest.approx(100, abs=40)


@pytest.mark.parametrize("variation", [1.0, 2.0, 3.0])
def test_gaps_have_the_coefficient_of_variation(variation: float) -> None:
    plan = replace(PLAN, variation=variation, duration_s=2000, input_tokens=parse_lengths("1"))

    assert squared_variation(plan) == pytest.approx(variation**2, rel=0.15)


def test_groups_share_their_prefix_and_nothing_else_and_are_about_equally_large() -> None:
    arrivals = replace(PLAN, shared_prefix_tokens=16, prefixes=3).arrivals()

    beginnings = Counter((arrival.prefix_group, arrival.prompt[: 4 * 16]) for arrival in arrivals)

    assert sorted(group for group, _ in beginnings) == [0, 1, 2]
    assert [count / len(arrivals) for count in beginnings.values()] == pytest.approx([1 / 3] * 3, abs=0.05)
    assert len({arrival.prompt[4 * 16 :] for arrival in arrivals}) == len(arrivals)
    assert all(len(arrival.prompt) == 4 * arrival.prompt_tokens for arrival in arrivals)


def test_two_targets_get_one_of_every_pair_equally_long_and_of_other_text() -> None:
    errands = plan_errands(PLAN, [ONE, OTHER])

    pairs = list(zip(errands[::2], errands[1::2], strict=False))
    assert {frozenset((first.target, second.target)) for first, second in pairs} == {frozenset((ONE, OTHER))}
    assert all(
        (first.arrival.prompt_tokens, first.arrival.max_tokens)
        == (second.arrival.prompt_tokens, second.arrival.max_tokens)
        for first, second in pairs
    )
    assert len({errand.arrival.prompt for errand in errands}) == len(errands)
    assert len({errand.arrival.prompt_tokens for errand in errands}) > 10


def test_neither_target_is_first_more_often() -> None:
    first = Counter(errand.target for errand in plan_errands(replace(PLAN, duration_s=400), [ONE, OTHER])[::2])

    assert first[ONE] / first.total() == pytest.approx(0.5, abs=0.03)


def test_one_target_gets_everything() -> None:
    assert [(errand.target, errand.arrival) for errand in plan_errands(PLAN, [ONE])] == [
        (ONE, arrival) for arrival in PLAN.arrivals()
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"duration_s": 1e-6, "warm_up_s": 0.0}, "no request is due in 1e-06 s"),
        ({"rate_per_s": 1e6}, "Shorten the run or lower the rate"),
        ({"warm_up_s": 1e9}, "Shorten the run or lower the rate"),
        ({"requests": 10**9, "duration_s": None}, "Shorten the run or lower the rate"),
        ({"input_tokens": parse_lengths("1000000")}, f"{MAX_PROMPT_BYTES >> 20} MiB is the most"),
        ({"shared_prefix_tokens": 1_000_000}, "Shorten the run or the prompts"),
        ({"shared_prefix_tokens": 100_000, "prefixes": 100_000}, "Shorten the run or the prompts"),
    ],
)
def test_plans_of_nothing_and_of_too_much_are_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        replace(PLAN, **changes).arrivals()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "variation"), [("poisson", 1.0), ("bursty", 2.0), ("bursty:3", 3.0), ("bursty:1.5", 1.5)]
)
def test_kinds_of_arrivals(text: str, variation: float) -> None:
    assert parse_variation(text) == variation


@pytest.mark.parametrize(
    "text", ["", "Poisson", "bursty:", "bursty:0.9", "bursty:11", "bursty:-2", "bursty:1e1", "gamma"]
)
def test_what_is_no_kind_of_arrivals_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"bursty"):
        parse_variation(text)
