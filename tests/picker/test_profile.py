"""A profile as a whole: which rows it prefers for given reports."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from factories import NOW, pool_of, request, view_of
from tidegate.picker.pickers.max_score import MaxScorePicker
from tidegate.picker.profile import Profile, WeightedScorer, default_profile
from tidegate.picker.request import InferenceRequest
from tidegate.pool.table import BoolArray, FloatArray, PoolView


@dataclass(frozen=True)
class Keep:
    """A filter that keeps what it is told."""

    rows: list[bool]

    def keep(self, request: InferenceRequest, pool: PoolView) -> BoolArray:
        return np.array(self.rows, dtype=bool)


@dataclass(frozen=True)
class Scores:
    """A scorer that says what it is told."""

    scores: list[float]

    def score(self, request: InferenceRequest, pool: PoolView) -> FloatArray:
        return np.array(self.scores)


def picks(view: PoolView, profile: Profile | None = None, count: int = 1) -> list[list[int]]:
    """Return what the profile picks with each of some twenty seeds."""
    profile = profile or default_profile()
    return [profile.pick(request(), view, count, np.random.default_rng(seed)) for seed in range(20)]


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(view_of(queued=[5, 0], running=[3, 3], kv=[0.5, 0.5]), id="shorter queue"),
        pytest.param(view_of(queued=[0, 0], running=[3, 3], kv=[0.5, 0.4]), id="emptier cache"),
        pytest.param(view_of(queued=[0, 0], running=[3, 2], kv=[0.5, 0.5]), id="smaller batch"),
    ],
)
def test_the_default_policy_prefers_less_of_each_load(view) -> None:
    assert picks(view) == [[1]] * 20


@pytest.mark.parametrize(
    "idle",
    [
        pytest.param({"queued": [None, 0], "running": [None, 0], "kv": [None, 0.0]}, id="all signals"),
        pytest.param({"queued": [None, 0], "running": [None, 0]}, id="no KV cache"),
        pytest.param({"queued": [None, 0], "kv": [None, 0.0]}, id="no running requests"),
    ],
)
def test_an_endpoint_that_does_not_report_ranks_below_one_known_idle(idle) -> None:
    assert picks(view_of(**idle)) == [[1]] * 20


def test_an_endpoint_that_does_not_report_is_still_used_when_the_others_are_full() -> None:
    assert picks(view_of(queued=[None, 90], running=[None, 64], kv=[None, 0.95])) == [[0]] * 20


def test_a_pool_that_says_nothing_is_used_evenly() -> None:
    assert {row for picked in picks(view_of(queued=[None, None, None])) for row in picked} == {0, 1, 2}


def test_the_last_report_of_an_unreachable_endpoint_does_not_change_the_choice_among_the_others() -> None:
    pool = pool_of(queued=[0, 20, 500], running=[5, 5, 5], kv=[0.5, 0.4, 0.4])
    pool.miss("e2", error="refused", reachable=False, now=NOW)

    assert picks(pool.view(NOW), count=3) == [[0, 1]] * 20


def test_what_a_filter_leaves_out_is_neither_picked_nor_compared_with() -> None:
    view = view_of(queued=[0, 20, 500], running=[5, 5, 5], kv=[0.5, 0.4, 0.4])
    profile = replace(default_profile(), filters=[Keep([True, True, False])])

    assert picks(view, profile, count=3) == [[0, 1]] * 20


def test_every_filter_must_keep_an_endpoint() -> None:
    view = view_of(queued=[0, 0, 0])
    profile = replace(default_profile(), filters=[Keep([True, True, False]), Keep([False, True, True])])

    assert picks(view, profile, count=3) == [[1]] * 20


def test_weights_decide_between_scorers_that_disagree() -> None:
    first, second = Scores([1.0, 0.0]), Scores([0.0, 1.0])
    profiles = [
        Profile((), [WeightedScorer(first, weight), WeightedScorer(second, 1.0)], MaxScorePicker())
        for weight in (2.0, 0.5)
    ]

    assert [picks(view_of(queued=[0, 0]), profile)[0] for profile in profiles] == [[0], [1]]


@pytest.mark.parametrize("kept", [[], [False], [False, False]])
def test_nothing_eligible_is_an_empty_answer(kept) -> None:
    profile = replace(default_profile(), filters=[Keep(kept)])

    assert picks(view_of(queued=[0] * len(kept)), profile) == [[]] * 20


def test_a_pick_leaves_the_view_as_it_was() -> None:
    view = view_of(queued=[0, None, 3], running=[1, 2, None], kv=[0.5, None, 0.1])
    columns = ("queued_requests", "running_requests", "kv_utilization", "in_flight", "eligible")
    before = {name: getattr(view, name).copy() for name in columns}

    picks(view, replace(default_profile(), filters=[Keep([True, True, False])]))

    for name in columns:
        np.testing.assert_array_equal(getattr(view, name), before[name])
