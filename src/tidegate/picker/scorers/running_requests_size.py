"""`running-requests-size-scorer`: prefers small running batches."""

from dataclasses import dataclass

from tidegate.picker.request import InferenceRequest
from tidegate.picker.scorers.spread import least_is_best
from tidegate.pool.table import FloatArray, PoolView


@dataclass(frozen=True, slots=True)
class RunningRequestsSizeScorer:
    """1 for the smallest running batch, 0 for the largest."""

    def score(self, request: InferenceRequest, pool: PoolView) -> FloatArray:
        """See `Scorer.score`."""
        return least_is_best(pool.running_requests)
