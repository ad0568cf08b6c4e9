"""`max-score-picker`: the best score wins, ties are drawn."""

from dataclasses import dataclass

import numpy as np

from tidegate.picker.plugins import IndexArray
from tidegate.pool.table import FloatArray


@dataclass(frozen=True, slots=True)
class MaxScorePicker:
    """Ranks by score; equal scores in random order, so that a burst over an idle pool spreads."""

    def pick(self, scores: FloatArray, candidates: IndexArray, count: int, rng: np.random.Generator) -> list[int]:
        """See `Picker.pick`."""
        left = scores[candidates]
        picked: list[int] = []
        for _ in range(min(count, candidates.size)):
            best = np.flatnonzero(left == left.max())
            chosen = best[rng.integers(best.size)] if best.size > 1 else best[0]
            picked.append(int(candidates[chosen]))
            left[chosen] = -np.inf
        return picked
