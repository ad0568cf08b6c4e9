"""The decision, whole: what both doors (ext_authz and ext_proc) ask.

Request path: InferenceRequest → profile over the Pool's view → **Decision**, counted in the Pool
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidegate.picker.profile import Profile
from tidegate.picker.request import InferenceRequest
from tidegate.pool.table import Pool


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request goes."""

    id: str
    """Ours, never the client's; the outcome comes back with it."""
    destinations: Sequence[str]
    """`ip:port`, in order of preference, at least one."""


class Director:
    """Picks endpoints and counts what it picked."""

    def __init__(
        self,
        pool: Pool,
        profile: Profile,
        *,
        destinations: int,
        tracked: bool,
        rng: np.random.Generator,
        id_prefix: str,
    ) -> None:
        """Pick up to `destinations` endpoints a request: the choice, then fallbacks.

        `tracked`: the pool will be told how each request ends. `id_prefix` must differ between processes, so that an
        outcome of a predecessor's decision is not taken for ours.
        """
        self._pool = pool
        self._profile = profile
        self._destinations = destinations
        self._tracked = tracked
        self._rng = rng
        self._id_prefix = id_prefix
        self._sequence = itertools.count()

    def decide(self, request: InferenceRequest, now: float) -> Decision | None:
        """Return where the request goes, and count it there; None when no endpoint is eligible."""
        view = self._pool.view(now)
        if request.subset is not None:
            view = view.only(self._pool.rows_at(request.subset))
        rows = self._profile.pick(request, view, self._destinations, self._rng)
        if not rows:
            return None
        decision = Decision(f"{self._id_prefix}{next(self._sequence)}", [view.endpoints[row].address for row in rows])
        self._pool.dispatch(
            rows[0],
            decision.id,
            now=now,
            prompt_tokens=request.prompt_tokens,
            tracked=self._tracked,
            origin=request.origin,
        )
        return decision
