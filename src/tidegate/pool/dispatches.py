"""The requests that are in flight, found by our id or by where they came from."""

from collections.abc import Collection, Hashable, Iterable

from tidegate.pool.row import Dispatch, Row


class Dispatches:
    """Whatever a row counts is here, and nothing else."""

    def __init__(self) -> None:
        self._by_id: dict[str, tuple[Row, Dispatch]] = {}
        self._ids_by_origin: dict[Hashable, str] = {}

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

    def id_from(self, origin: Hashable) -> str:
        """Return our id of the request that came from there; empty when there is none."""
        return self._ids_by_origin.get(origin, "")

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
