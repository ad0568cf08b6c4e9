"""`kv-cache-utilization-scorer`: prefers free KV cache."""

from dataclasses import dataclass

import numpy as np

from tidegate.picker.request import InferenceRequest
from tidegate.pool.table import FloatArray, PoolView


@dataclass(frozen=True, slots=True)
class KvCacheUtilizationScorer:
    """1 - utilization. An endpoint that did not report scores 0: known to be idle beats unknown."""

    def score(self, request: InferenceRequest, pool: PoolView) -> FloatArray:
        """See `Scorer.score`."""
        # fmax passes over NaN, at a tenth of the price of nan_to_num.
        scores: FloatArray = np.fmax(1.0 - pool.kv_utilization, 0.0)
        return scores
