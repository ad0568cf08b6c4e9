"""The pool: one row per endpoint, columns as NumPy arrays; observed, predicted, corrected.

Signals come late: read alone they send a whole burst to the endpoint that looked idle. Counts of our own requests are
prompt, but drift away from what the server really does. So each row holds both: a dispatch changes it at once
(prediction), the request's end changes it again, and each report corrects it, knowing which dispatches and which ends
that report cannot have seen yet.

Signals path:   LoadSignals → **Pool.report** → columns
Request path:   **Pool.view** → filters, scorers, picker → **Pool.dispatch**
Outcomes path:  outcome → **Pool.release**
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidegate.pool.dispatches import Dispatches
from tidegate.pool.endpoint import Endpoint
from tidegate.pool.row import Dispatch, Row
from tidegate.protocol.signals import LoadSignals

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PoolView:
    """The pool at one moment, as filters and scorers see it: arrays of shape (endpoints,), in the order of `endpoints`.

    Valid until the pool changes: read it and let go, never keep or write it. NaN means that the endpoint did not say.
    """

    endpoints: Sequence[Endpoint]
    queued_requests: FloatArray
    """Requests waiting there now, predicted from the last report; where that is stale or missing, all of ours."""
    running_requests: FloatArray
    """Requests in the running batch, predicted, or ours that do not wait; NaN where there is no fresh report."""
    kv_utilization: FloatArray
    """Used / total KV-cache blocks in [0, 1], with the prompts dispatched since; NaN where stale or missing."""
    in_flight: FloatArray
    """Requests we sent there that have not ended."""
    eligible: BoolArray
    """False where the server cannot be reached, or has just failed a request."""

    def only(self, keep: BoolArray) -> "PoolView":
        """Return the same rows, nothing known of those that `keep`, of shape (endpoints,), leaves out."""
        return PoolView(
            endpoints=self.endpoints,
            queued_requests=np.where(keep, self.queued_requests, np.nan),
            running_requests=np.where(keep, self.running_requests, np.nan),
            kv_utilization=np.where(keep, self.kv_utilization, np.nan),
            in_flight=np.where(keep, self.in_flight, np.nan),
            eligible=self.eligible & keep,
        )


class Pool:
    """The rows and the observer. All times are seconds of one monotonic clock, passed in."""

    def __init__(self, *, stale_after_s: float) -> None:
        self._stale_after_s = stale_after_s
        self._rows: list[Row] = []
        self._by_name: dict[str, Row] = {}
        self._by_address: dict[str, Row] = {}
        self._rows_by_ip: dict[str, list[Row]] = {}
        self._dispatches = Dispatches()
        self._endpoints: tuple[Endpoint, ...] = ()
        self._allocate(0)

    def _allocate(self, size: int) -> None:
        self._queued = np.full(size, np.nan)
        self._running = np.full(size, np.nan)
        self._kv = np.full(size, np.nan)
        self._in_flight = np.zeros(size)
        self._observed_at = np.full(size, -np.inf)
        self._ineligible_until = np.full(size, -np.inf)
        self._stumbling = np.zeros(size, dtype=np.bool_)

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """The endpoints in the order of the rows."""
        return self._endpoints

    @property
    def rows(self) -> Sequence[Row]:
        """The rows, to be read by whoever shows the pool to people."""
        return self._rows

    def set_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """Replace the members. An endpoint that stays keeps its row's history; one that left takes its with it."""
        self._endpoints = tuple(endpoints)
        self._rows = [self._row_of(endpoint) for endpoint in self._endpoints]
        self._dispatches.keep(self._rows)
        self._by_name = {row.endpoint.name: row for row in self._rows}
        self._by_address = {row.endpoint.address: row for row in self._rows}
        self._rows_by_ip = {}
        for row in self._rows:
            self._rows_by_ip.setdefault(row.endpoint.address.rpartition(":")[0], []).append(row)
        self._allocate(len(self._rows))
        for index, row in enumerate(self._rows):
            row.index = index
            self._write(row)

    def report(self, name: str, signals: LoadSignals, *, started_at: float) -> None:
        """Take one scrape's signals; `started_at` is when it was asked for. A name that has left is ignored."""
        if (row := self._by_name.get(name)) is None:
            return
        self._dispatches.discard(row.correct(signals, started_at))
        if row.error:  # it is back: whatever failed before says nothing of it now
            row.forgive()
        row.reachable, row.error = True, ""
        self._write(row)

    def miss(self, name: str, *, error: str, reachable: bool | None, now: float) -> None:
        """Note that a scrape failed: the last report ages.

        `reachable`: whether the serving port took the connection; None when that was not tried, or cannot be told.
        """
        if (row := self._by_name.get(name)) is not None:
            row.error = error
            row.reachable = row.reachable if reachable is None else reachable
            self._dispatches.discard(row.expire(now))
            self._write(row)

    def view(self, now: float) -> PoolView:
        """Return what the columns say now. Costs a few vector operations, whatever the number of endpoints."""
        stale = now - self._observed_at > self._stale_after_s
        unknown = stale | np.isnan(self._queued)
        return PoolView(
            endpoints=self._endpoints,
            queued_requests=np.where(unknown, self._in_flight, self._queued),
            running_requests=np.where(stale, np.nan, self._running),
            kv_utilization=np.where(stale, np.nan, self._kv),
            in_flight=self._in_flight,
            eligible=self._ineligible_until <= now,
        )

    def dispatch(
        self,
        index: int,
        dispatch_id: str,
        *,
        now: float,
        prompt_tokens: float,
        tracked: bool = True,
        origin: Hashable = None,
    ) -> None:
        """Count a request as sent to the endpoint of row `index`.

        `prompt_tokens` may be an estimate. `tracked`: `release` will tell its end; otherwise it counts until a report
        has seen it. `origin`: what else it can be found by; where `release_from` was told its end already, it is not
        counted.
        """
        if self._dispatches.take_ended(origin):
            return
        row = self._rows[index]
        dispatch = Dispatch(dispatch_id, now, prompt_tokens, tracked, origin)
        self._dispatches.add(row, dispatch)
        row.add(dispatch)
        self._write(row)

    def release_from(self, origin: Hashable, *, now: float) -> None:
        """Count the request that came from there as ended, though Envoy has not read our decision on it.

        A picker that hung reads what Envoy asked a while ago, and what it says of the end since, in any order: the
        decision may be still to come.
        """
        if (known := self._dispatches.pop_from(origin)) is not None:
            row, dispatch = known
            row.remove(dispatch, now)
            self._write(row)

    def release(self, dispatch_id: str, *, now: float, answered_by: str | None, well: bool = True) -> bool:
        """Count a request as ended, once; False when the id is not, or no longer, known.

        `answered_by`: the `ip:port` that answered, "" when none did, None when that cannot be told (the client left).
        `well`: whether that answer was whole, and no server error. An endpoint is passed over for a while when another
        answered its request well, or none did, and when several in a row end badly.
        """
        known = self._dispatches.pop(dispatch_id)
        if known is None:
            return False
        row, dispatch = known
        row.remove(dispatch, now)
        if answered_by and not well:  # whoever gave it: where nobody does better, the request may be to blame
            row.stumble(now, alone=self._others_do_well(row, now))
        elif answered_by == row.endpoint.address:
            row.answer_well()
        elif answered_by is not None:
            row.eject(now)
        self._write(row)
        return True

    def doubt(self, until: float) -> None:
        """Note that the ends of requests sent by then may not be told, so that reports repair the counts soon."""
        for row in self._rows:
            self._dispatches.discard(row.doubt(until))
            self._write(row)

    def state(self, row: Row, now: float) -> str:
        """Return what a person should know: ready, stale, unknown (never reported), ejected or unreachable."""
        if not row.reachable:
            return "unreachable"
        if row.ejected_until > now:
            return "ejected"
        if row.signals is None:
            return "unknown"
        return "stale" if now - row.signals.observed_at > self._stale_after_s else "ready"

    def rows_at(self, addresses: Iterable[str]) -> BoolArray:
        """Return an array of shape (endpoints,), True where an endpoint has one of these `ip:port` or bare `ip`."""
        found = np.zeros(len(self._rows), dtype=np.bool_)
        for address in addresses:
            for row in self._rows_by_ip.get(address, ()):
                found[row.index] = True
            if (row_at := self._by_address.get(address)) is not None:
                found[row_at.index] = True
        return found

    def endpoint_at(self, address: str) -> Endpoint | None:
        """Return the endpoint whose `ip:port` this is."""
        row = self._by_address.get(address)
        return row.endpoint if row else None

    def _others_do_well(self, row: Row, now: float) -> bool:
        """Return whether some other endpoint that can be picked has answered well last."""
        does_well = (self._ineligible_until <= now) & ~self._stumbling
        does_well[row.index] = False
        return bool(does_well.any())

    def _row_of(self, endpoint: Endpoint) -> Row:
        row = self._by_name.get(endpoint.name)
        return row if row is not None and row.endpoint == endpoint else Row(endpoint)

    def _write(self, row: Row) -> None:
        i = row.index
        self._queued[i], self._running[i], self._kv[i] = row.predict()
        self._in_flight[i] = row.in_flight
        self._observed_at[i] = row.signals.observed_at if row.signals else -np.inf
        self._ineligible_until[i] = row.ejected_until if row.reachable else np.inf
        self._stumbling[i] = row.stumbling
