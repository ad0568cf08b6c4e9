"""The scale that `queue-scorer` and `running-requests-size-scorer` share."""

import numpy as np

from tidegate.pool.table import FloatArray


def least_is_best(counts: FloatArray) -> FloatArray:
    """Return (max - count) / (max - min), 1 where all are equal. NaN, "did not say", scores 0 even then.

    Source: the Go endpoint picker's queue scorer.
    """
    if counts.size == 0:
        return np.ones(0)
    low, high = np.fmin.reduce(counts), np.fmax.reduce(counts)
    if not low < high:  # all that is known is equal
        return np.isfinite(counts).astype(np.float64)
    # fmax passes over NaN, at a tenth of the price of nan_to_num.
    scores: FloatArray = np.fmax((high - counts) / (high - low), 0.0)
    return scores
