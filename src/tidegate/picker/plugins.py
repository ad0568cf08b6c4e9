"""What a policy is made of: filters leave endpoints out, scorers rate them, one picker chooses.

Plugins share no base class. They run on every request: no await, no log, no Python loop over endpoints.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tidegate.picker.request import InferenceRequest
from tidegate.pool.table import BoolArray, FloatArray, PoolView

IndexArray = NDArray[np.intp]


class Filter(Protocol):
    """Leaves out endpoints that must not get this request."""

    def keep(self, request: InferenceRequest, pool: PoolView) -> BoolArray:
        """Return a new boolean array of shape (endpoints,), in the order of the pool's rows; False leaves one out."""


class Scorer(Protocol):
    """Rates all endpoints for one request."""

    def score(self, request: InferenceRequest, pool: PoolView) -> FloatArray:
        """Return a new float64 array of shape (endpoints,), in [0, 1], in the order of the pool's rows; 1 is best."""


class Picker(Protocol):
    """Chooses among the endpoints that the filters left, by their scores."""

    def pick(self, scores: FloatArray, candidates: IndexArray, count: int, rng: np.random.Generator) -> list[int]:
        """Return up to `count` different rows, the best first.

        `scores` has shape (endpoints,), the weighted sums; `candidates` holds the rows to choose from, at least one.
        """
