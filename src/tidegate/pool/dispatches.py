"""The requests that are in flight, found by our id or by where they came from."""

from collections.abc import Collection, Hashable, Iterable

from tidegate.pool.row import Dispatch, Row

MAX_ENDED = 4096
"""How many requests are remembered that ended before they were decided on: those of some seconds in which we hung."""


class Dispatches:
    """Whatever a row counts is here, and nothing else."""

    def __init__(self) -> None:
        self._by_id: dict[str, tuple[Row, Dispatch]] = {}
        self._ids_by_origin: dict[Hashable, str] = {}
        self._ended: dict[Hashable, None] = {}
        """Origins, the oldest first."""

    def add(self, row: Row, dispatch: Dispatch) -> None:
        """Remember a request that was sent to the row's endpoint."""
        self._by_id[dispatch.id] = (row, dispatch)
        if dispatch.origin is not None:
            self._ids_by_origin[dispatch.origin] = dispatch.id

    def pop(self, dispatch_id: str) -> tuple[Row, Dispatch] | None:
        """Forget a request and return it; None when it is not, or no longer, known."""
        known = self._by_id.pop(dispatch_id, None)
        if known is not None:
            self._forget_origin(known[1])
        return known

    def pop_from(self, origin: Hashable) -> tuple[Row, Dispatch] | None:
        """Forget the request that came from there and has ended, and return it.

        None when it is not known, or not yet: `take_ended` tells so once, when it comes.
        """
        dispatch_id = self._ids_by_origin.get(origin)
        if dispatch_id is not None:
            return self.pop(dispatch_id)
        if origin is None:
            return None
        self._ended[origin] = None
        if len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]
        return None

    def take_ended(self, origin: Hashable) -> bool:
        """Return whether the request that came from there is known to have ended, and forget that."""
        if origin not in self._ended:
            return False
        del self._ended[origin]
        return True

    def discard(self, dispatches: Iterable[Dispatch]) -> None:
        """Forget requests that their row has forgotten."""
        for dispatch in dispatches:
            self.pop(dispatch.id)

    def keep(self, rows: Collection[Row]) -> None:
        """Forget the requests of all other rows."""
        kept = set(map(id, rows))
        self.discard([dispatch for row, dispatch in list(self._by_id.values()) if id(row) not in kept])

    def _forget_origin(self, dispatch: Dispatch) -> None:
        # A later request may have come from the same place: the key is then its.
        if self._ids_by_origin.get(dispatch.origin) == dispatch.id:
            del self._ids_by_origin[dispatch.origin]
