"""A profile: the plugins of one policy, run in order, and what they decide.

Request path: request + PoolView → filters → weighted scorers → picker → **rows in order of preference**
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidegate.picker.pickers.max_score import MaxScorePicker
from tidegate.picker.plugins import Filter, Picker, Scorer
from tidegate.picker.request import InferenceRequest
from tidegate.picker.scorers.kv_cache_utilization import KvCacheUtilizationScorer
from tidegate.picker.scorers.queue import QueueScorer
from tidegate.picker.scorers.running_requests_size import RunningRequestsSizeScorer
from tidegate.pool.table import PoolView


@dataclass(frozen=True, slots=True)
class WeightedScorer:
    """A scorer and what a full score of it is worth."""

    scorer: Scorer
    weight: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Filters, weighted scorers and one picker."""

    filters: Sequence[Filter]
    scorers: Sequence[WeightedScorer]
    picker: Picker

    def pick(self, request: InferenceRequest, pool: PoolView, count: int, rng: np.random.Generator) -> list[int]:
        """Return up to `count` rows in order of preference; empty when no endpoint is eligible."""
        keep = pool.eligible
        for filter_ in self.filters:
            keep = keep & filter_.keep(request, pool)
        candidates = np.flatnonzero(keep)
        if candidates.size == 0:
            return []
        if candidates.size < keep.size:
            # The last words of a dead server must not stretch the scale on which the others are compared.
            pool = pool.only(keep)
        scores = np.zeros(keep.size)
        for weighted in self.scorers:
            scores += weighted.weight * weighted.scorer.score(request, pool)
        return self.picker.pick(scores, candidates, count, rng)


def default_profile() -> Profile:
    """Return the policy used when none is configured."""
    return Profile(
        filters=(),
        scorers=(
            WeightedScorer(QueueScorer(), 2.0),
            WeightedScorer(KvCacheUtilizationScorer(), 2.0),
            WeightedScorer(RunningRequestsSizeScorer(), 1.0),
        ),
        picker=MaxScorePicker(),
    )
