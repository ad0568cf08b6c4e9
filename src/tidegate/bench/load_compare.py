"""What one target adds to another: the differences of their figures, and how sure they are.

Bench: results of both → **Added** → table, JSON. Pure: chance comes from a seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 500
_BATCH = 1_000_000
"""How many pairs are drawn again at a time."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """A difference of two figures, the first less the second; seconds."""

    seconds: float
    low_s: float
    """Lower end of the 95 % interval, by bootstrap."""
    high_s: float

    @property
    def is_certain(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low_s > 0 or self.high_s < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedDurations:
    """Differences of the mean and of percentiles."""

    pairs: int
    """How many pairs of requests they are of."""
    mean: Added
    p50: Added
    p90: Added
    p99: Added


def compare(pairs: Sequence[tuple[float, float]], *, seed: int = 1) -> AddedDurations | None:
    """Return what the first of each pair adds to the second; None without pairs.

    Whole pairs are drawn again for the intervals: what a busy moment does to both of them cancels out.
    """
    if not pairs:
        return None
    both = np.array(pairs)
    rng = np.random.default_rng(seed)
    low, high = np.percentile(_differences_again(both, rng), (2.5, 97.5), axis=1)
    found = _differences(both[np.newaxis])[:, 0]
    added = [
        Added(seconds=seconds, low_s=low_s, high_s=high_s)
        for seconds, low_s, high_s in zip(found.tolist(), low.tolist(), high.tolist(), strict=True)
    ]
    return AddedDurations(pairs=len(pairs), mean=added[0], p50=added[1], p90=added[2], p99=added[3])


def _differences(samples: Floats) -> Floats:
    """Return the differences of mean, p50, p90 and p99; shape (4, samples), of samples of shape (samples, size, 2)."""
    figures = np.concatenate([samples.mean(axis=1)[np.newaxis], np.percentile(samples, (50, 90, 99), axis=1)])
    difference: Floats = figures[:, :, 0] - figures[:, :, 1]
    return difference


def _differences_again(pairs: Floats, rng: np.random.Generator) -> Floats:
    """Return the differences in RESAMPLES samples of pairs drawn from these, with replacement; shape (4, RESAMPLES)."""
    at_a_time = max(1, _BATCH // len(pairs))
    parts = [
        _differences(pairs[rng.integers(len(pairs), size=(min(at_a_time, RESAMPLES - done), len(pairs)))])
        for done in range(0, RESAMPLES, at_a_time)
    ]
    return np.hstack(parts)
