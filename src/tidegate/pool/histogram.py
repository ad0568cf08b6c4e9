"""How often values fell between which bounds."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Histogram:
    """Counts values by the first upper bound that is not below them."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds`: upper bounds, ascending, without infinity."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[float, int]]:
        """Return how many values are at most each bound, infinity last."""
        return list(zip((*self._bounds, float("inf")), accumulate(self._counts), strict=True))
