"""The best score wins, ties are drawn."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.picker.pickers.max_score import MaxScorePicker


def pick(scores: list[float], candidates: list[int], count: int = 1, seed: int = 0) -> list[int]:
    return MaxScorePicker().pick(np.array(scores), np.array(candidates), count, np.random.default_rng(seed))


def test_the_best_candidates_come_first() -> None:
    assert pick([0.1, 0.4, 0.2, 0.3], [0, 1, 2, 3], count=3) == [1, 3, 2]


def test_only_candidates_are_picked_however_good_the_others() -> None:
    assert pick([9.0, 0.1, 9.0, 0.2], [1, 3], count=4) == [3, 1]


def test_a_negative_score_is_still_a_score() -> None:
    assert pick([-3.0, -1.0, -2.0], [0, 1, 2], count=3) == [1, 2, 0]


@pytest.mark.parametrize("tied", [[0, 1], [0, 2, 3, 5], list(range(10))])
def test_random_ties_are_fair(tied) -> None:
    scores = [float(row in tied) for row in range(10)]
    rng = np.random.default_rng(7)
    draws = 400 * len(tied)

    first = Counter(MaxScorePicker().pick(np.array(scores), np.arange(10), 1, rng)[0] for _ in range(draws))

    # 400 expected each; 100 is five standard deviations.
    assert set(first) == set(tied)
    assert all(300 < times < 500 for times in first.values())


def test_the_order_of_tied_fallbacks_is_drawn_too() -> None:
    orders = {tuple(pick([1.0, 1.0, 1.0], [0, 1, 2], count=3, seed=seed)) for seed in range(100)}

    assert len(orders) == 6


def test_the_same_seed_gives_the_same_picks() -> None:
    assert pick([1.0] * 50, list(range(50)), count=50, seed=3) == pick([1.0] * 50, list(range(50)), count=50, seed=3)


def test_the_scores_are_not_changed() -> None:
    scores = np.array([0.1, 0.4, 0.2])

    MaxScorePicker().pick(scores, np.arange(3), 3, np.random.default_rng(0))

    assert scores.tolist() == [0.1, 0.4, 0.2]


@given(
    scores=st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=12),
    count=st.integers(1, 15),
    data=st.data(),
)
def test_picks_are_different_candidates_in_falling_order_of_score(scores, count, data) -> None:
    candidates = data.draw(st.lists(st.sampled_from(range(len(scores))), min_size=1, unique=True).map(sorted))

    picked = pick(scores, candidates, count)

    assert len(picked) == len(set(picked)) == min(count, len(candidates))
    ranked = sorted((scores[row] for row in candidates), reverse=True)
    assert [scores[row] for row in picked] == ranked[: len(picked)]
    assert set(picked) <= set(candidates)
