"""Seed → arrivals."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tidegate.bench.lengths import TokenLengths
from tidegate.bench.workload import Arrival, PromptMix, SharedPrefixes, bursty_workload
from tidegate.protocol.errors import ConfigError

PREFIXES = SharedPrefixes(groups=4, tokens=50, zipf=1.0)


def workload(seed: int = 7, duration_s: float = 100, rate_per_s: float = 20, **more: object) -> list[Arrival]:
    return bursty_workload(seed=seed, duration_s=duration_s, rate_per_s=rate_per_s, **more)  # type: ignore[arg-type]


def squared_variation(arrivals: list[Arrival]) -> float:
    gaps = np.diff([0.0, *(arrival.at_s for arrival in arrivals)])
    return float((gaps.std() / gaps.mean()) ** 2)


def test_the_same_seed_gives_the_same_requests_at_the_same_times() -> None:
    assert workload(prefixes=PREFIXES) == workload(prefixes=PREFIXES)


def test_another_seed_gives_others() -> None:
    first, second = workload(seed=1), workload(seed=2)

    assert {arrival.at_s for arrival in first}.isdisjoint(arrival.at_s for arrival in second)
    assert {arrival.prompt for arrival in first}.isdisjoint(arrival.prompt for arrival in second)


def test_arrivals_come_in_order_within_the_duration_at_about_the_rate() -> None:
    times = [arrival.at_s for arrival in workload(duration_s=500)]

    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < 500
    assert len(times) == pytest.approx(500 * 20, rel=0.1)


@pytest.mark.parametrize("burstiness", [0.25, 1, 4])
def test_burstiness_is_the_squared_variation_of_the_gaps(burstiness: float) -> None:
    arrivals = workload(
        duration_s=2000, burstiness=burstiness, outputs=TokenLengths(median_tokens=1, sigma=0, max_tokens=1)
    )

    assert squared_variation(arrivals) == pytest.approx(burstiness, rel=0.15)


def test_lengths_and_texts_can_change_without_moving_the_arrivals() -> None:
    plain = workload()
    other = workload(prefixes=PREFIXES, outputs=TokenLengths(median_tokens=9, sigma=0, max_tokens=9))

    assert [arrival.at_s for arrival in plain] == [arrival.at_s for arrival in other]
    assert {arrival.max_tokens for arrival in other} == {9}


def test_a_prompt_token_is_four_bytes_of_plain_text() -> None:
    for arrival in workload(duration_s=10, prefixes=PREFIXES):
        assert len(arrival.prompt.encode()) == 4 * arrival.prompt_tokens
        assert len(arrival.prompt.split()) == arrival.prompt_tokens


def test_prompts_are_a_mixture_of_short_and_long() -> None:
    mix = PromptMix(
        short=TokenLengths(median_tokens=20, sigma=0, max_tokens=100),
        long=TokenLengths(median_tokens=900, sigma=0, max_tokens=1000),
        long_share=0.25,
    )
    lengths = Counter(arrival.prompt_tokens for arrival in workload(duration_s=200, prompts=mix))

    assert lengths.keys() == {20, 900}
    assert lengths[900] / lengths.total() == pytest.approx(0.25, abs=0.03)


def test_lengths_spread_around_their_median_within_one_and_the_maximum() -> None:
    lengths = TokenLengths(median_tokens=50, sigma=1.5, max_tokens=400)

    drawn = np.array([arrival.max_tokens for arrival in workload(duration_s=200, outputs=lengths)])

    assert drawn.min() >= 1
    assert drawn.max() == 400
    assert np.median(drawn) == pytest.approx(50, rel=0.1)


def test_requests_of_a_prefix_group_begin_alike_and_others_do_not() -> None:
    arrivals = workload(prefixes=PREFIXES)
    prefix = 4 * PREFIXES.tokens

    beginnings = {(arrival.prefix_group, arrival.prompt[:prefix]) for arrival in arrivals}

    assert sorted(group for group, _ in beginnings if group is not None) == [0, 1, 2, 3]
    assert len({text[:16] for _, text in beginnings}) == 4
    assert len({arrival.prompt[prefix:] for arrival in arrivals}) == len(arrivals)


@pytest.mark.parametrize(("zipf", "shares"), [(1.0, [12 / 25, 6 / 25, 4 / 25, 3 / 25]), (0.0, [0.25] * 4)])
def test_the_first_prefixes_are_the_popular_ones(zipf: float, shares: list[float]) -> None:
    groups = Counter(
        arrival.prefix_group for arrival in workload(duration_s=200, prefixes=replace(PREFIXES, zipf=zipf))
    )

    assert [groups[k] / groups.total() for k in range(4)] == pytest.approx(shares, abs=0.03)


def test_without_prefixes_no_two_prompts_begin_alike() -> None:
    arrivals = workload()

    assert {arrival.prefix_group for arrival in arrivals} == {None}
    assert len({arrival.prompt[:24] for arrival in arrivals}) == len(arrivals)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"duration_s": 0}, "duration_s"),
        ({"rate_per_s": -1}, "rate_per_s"),
        ({"rate_per_s": float("nan")}, "rate_per_s"),
        ({"burstiness": 0}, "burstiness"),
        ({"burstiness": 1e9}, "burstiness"),
        ({"duration_s": 1e6, "rate_per_s": 1e6}, "Shorten the run"),
    ],
)
def test_arguments_that_make_no_workload_are_refused_by_name(arguments: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        workload(**arguments)  # type: ignore[arg-type]
