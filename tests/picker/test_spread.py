"""The min-max scale that counts are scored on."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.picker.scorers.spread import least_is_best

NAN = float("nan")


@pytest.mark.parametrize(
    ("counts", "scores"),
    [
        pytest.param([], [], id="no endpoint"),
        pytest.param([7], [1], id="one endpoint"),
        pytest.param([NAN], [0], id="one endpoint, unknown"),
        pytest.param([NAN, NAN], [0, 0], id="all unknown"),
        pytest.param([3, 3, 3], [1, 1, 1], id="all equal"),
        pytest.param([0, 5, 10], [1, 0.5, 0], id="spread evenly"),
        pytest.param([0, 10, NAN], [1, 0, 0], id="unknown like the longest"),
        pytest.param([0, NAN], [1, 0], id="one known, one unknown"),
        pytest.param([4, NAN, 4], [1, 0, 1], id="all known are equal"),
    ],
)
def test_the_shortest_scores_1_and_the_longest_and_unknown_0(counts, scores) -> None:
    assert least_is_best(np.array(counts, dtype=float)).tolist() == scores


def test_the_counts_are_not_changed() -> None:
    counts = np.array([1.0, NAN, 3.0])

    least_is_best(counts)

    assert counts == pytest.approx([1.0, NAN, 3.0], nan_ok=True)


@given(st.lists(st.one_of(st.just(NAN), st.integers(0, 10**9)), min_size=1))
def test_scores_lie_in_0_to_1_and_fewer_never_scores_less(counts) -> None:
    scores = least_is_best(np.array(counts, dtype=float)).tolist()

    known = sorted((count, -score) for count, score in zip(counts, scores, strict=True) if not math.isnan(count))
    assert all(0.0 <= score <= 1.0 for score in scores)
    assert [score for _, score in known] == sorted(score for _, score in known)
