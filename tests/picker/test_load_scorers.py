"""Which column each scorer of load reads, and what silence is worth."""

import pytest

from factories import request, view_of
from tidegate.picker.plugins import Scorer
from tidegate.picker.scorers.kv_cache_utilization import KvCacheUtilizationScorer
from tidegate.picker.scorers.queue import QueueScorer
from tidegate.picker.scorers.running_requests_size import RunningRequestsSizeScorer

VIEW = view_of(queued=[0, 4, 2, None], running=[30, 10, None, 20], kv=[0.25, None, 1.0, 0.0])


@pytest.mark.parametrize(
    ("scorer", "scores"),
    [
        # An endpoint that did not say how many there are counts our own requests: none.
        pytest.param(QueueScorer(), [1.0, 0.0, 0.5, 1.0], id="queue"),
        pytest.param(RunningRequestsSizeScorer(), [0.0, 2 / 3, 1.0, 1 / 3], id="running"),
        pytest.param(KvCacheUtilizationScorer(), [0.75, 0.0, 0.0, 1.0], id="kv cache"),
    ],
)
def test_less_load_scores_higher(scorer: Scorer, scores: list[float]) -> None:
    assert scorer.score(request(), VIEW).tolist() == pytest.approx(scores)


@pytest.mark.parametrize("scorer", [QueueScorer(), RunningRequestsSizeScorer(), KvCacheUtilizationScorer()])
@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_pool_of_any_size_that_never_reported_scores_alike(scorer: Scorer, size: int) -> None:
    scores = scorer.score(request(), view_of(queued=[None] * size))

    assert scores.shape == (size,)
    assert len(set(scores.tolist())) <= 1
