"""`queue-scorer`: prefers short queues."""

from dataclasses import dataclass

from tidegate.picker.request import InferenceRequest
from tidegate.picker.scorers.spread import least_is_best
from tidegate.pool.table import FloatArray, PoolView


@dataclass(frozen=True, slots=True)
class QueueScorer:
    """1 for the shortest queue of waiting requests, 0 for the longest."""

    def score(self, request: InferenceRequest, pool: PoolView) -> FloatArray:
        """See `Scorer.score`."""
        return least_is_best(pool.queued_requests)
