"""Any interleaving of what happens to a pool, against a list of dispatches that is scanned from end to end."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from factories import STALE_AFTER_S, endpoint, signals
from tidegate.pool.row import REPAIR_AFTER_S, VISIBILITY_LAG_S
from tidegate.pool.table import Pool
from tidegate.protocol.signals import LoadSignals

NUMBERS = range(2)
# On both sides of the visibility lag; in fractions whose sums are exact.
STEPS = st.sampled_from([0.0, 0.03125, 0.0625, 1.0])
COUNTS = st.none() | st.integers(0, 5)
FIGURES = st.tuples(COUNTS, COUNTS, st.none() | st.floats(0, 1))


@dataclass
class Sent:
    """One request, ever."""

    id: str
    number: int
    sent_at: float
    reported: bool = False
    """A report shows it."""
    ended_at: float | None = None
    end_reported: bool = False
    """A report shows that it ended."""


@dataclass
class Server:
    """What is known of one endpoint."""

    last: LoadSignals | None = None
    late_since: float | None = None
    sent: list[Sent] = field(default_factory=list)

    def live(self) -> list[Sent]:
        return [request for request in self.sent if request.ended_at is None]

    def may_be_late(self, now: float, *, late: bool, complete: bool) -> bool:
        """Return whether a report can leave out what still runs without ours being taken for lost."""
        if complete and not late:
            self.late_since = None
        elif late and self.late_since is None:
            self.late_since = now
        return late and self.late_since is not None and now - self.late_since < REPAIR_AFTER_S

    def change(self) -> int:
        """Return requests that came less requests that left, as far as the last report cannot know."""
        came = sum(not request.reported for request in self.live())
        left = sum(r.reported and r.ended_at is not None and not r.end_reported for r in self.sent)
        return came - left

    def expected(self, now: float) -> tuple[float, float]:
        """Return queued and running requests, as the pool should predict them."""
        ours = len(self.live())
        if self.last is None or now - self.last.observed_at > STALE_AFTER_S:
            return ours, math.nan
        waiting, batch = self.last.queued_requests, self.last.running_requests
        running = math.nan if batch is None else max(0, batch + min(0, (waiting or 0) + self.change()))
        if waiting is None:
            return ours, running
        queued = max(0, waiting + self.change())
        if batch is None:
            running = max(0, ours - queued)
        return max(queued, ours - running), running


class PoolMachine(RuleBasedStateMachine):
    """Drives a Pool and the model side by side. No server is late for so long that our requests count as lost."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(stale_after_s=STALE_AFTER_S)
        self.now = 100.0
        self.serial = 0
        self.servers = {number: Server() for number in NUMBERS}
        self.gone: list[str] = []
        self.pool.set_endpoints(map(endpoint, NUMBERS))

    # Seldom, and one at a time: a pool that is always new has no history to get wrong.
    @rule(number=st.sampled_from([None] * 6 + list(NUMBERS)), first=st.booleans())
    def join_or_leave(self, number: int | None, first: bool) -> None:
        if number is None:
            return
        if (left := self.servers.pop(number, None)) is not None:
            self.gone += [request.id for request in left.live()]
        elif first:
            self.servers = {number: Server(), **self.servers}
        else:
            self.servers[number] = Server()
        self.pool.set_endpoints(map(endpoint, self.servers))

    @precondition(lambda self: self.servers)
    @rule(data=st.data(), burst=st.integers(1, 4), quarter_tokens=st.integers(0, 4000))
    def dispatch(self, data: Any, burst: int, quarter_tokens: int) -> None:
        index = data.draw(st.sampled_from(range(len(self.servers))))
        number = list(self.servers)[index]
        for _ in range(burst):
            self.serial += 1
            request = Sent(f"r{self.serial}", number, self.now)
            self.pool.dispatch(index, request.id, now=self.now, prompt_tokens=quarter_tokens / 4)
            self.servers[number].sent.append(request)

    @precondition(lambda self: any(server.live() for server in self.servers.values()))
    @rule(data=st.data(), waited=STEPS, blame=st.sampled_from([None, "", "itself", "192.0.2.1:8000"]))
    def release(self, data: Any, waited: float, blame: str | None) -> None:
        self.now += waited
        live = [request for server in self.servers.values() for request in server.live()]
        request = data.draw(st.sampled_from(live))
        answered_by = endpoint(request.number).address if blame == "itself" else blame
        assert self.pool.release(request.id, now=self.now, answered_by=answered_by)
        assert not self.pool.release(request.id, now=self.now, answered_by=answered_by)
        request.ended_at = self.now

    @rule(data=st.data())
    def release_what_is_not_ours(self, data: Any) -> None:
        dispatch_id = data.draw(st.sampled_from(["", "elsewhere", *self.gone]))
        assert not self.pool.release(dispatch_id, now=self.now, answered_by="")

    @rule(number=st.sampled_from(NUMBERS), figures=FIGURES, late=st.booleans(), waited=STEPS, took=STEPS)
    def report(
        self, number: int, figures: tuple[int | None, int | None, float | None], late: bool, waited: float, took: float
    ) -> None:
        """Report `queued` waiting and `others` running, asked for `took` ago; unless `late`, beside all of ours."""
        queued, others, kv = figures
        self.now += waited
        server = self.servers.get(number, Server())
        asked_at = self.now - took
        if server.last is not None:  # one scrape at a time
            asked_at = max(asked_at, server.last.observed_at)
        late = server.may_be_late(self.now, late=late, complete=None not in (queued, others))
        running = None if others is None else others + (0 if late else len(server.live()))
        answer = signals(queued, running, kv, at=self.now, num_blocks=10, block_size=100)
        self.pool.report(f"e{number}", answer, started_at=asked_at)
        server.last = answer
        for request in server.sent:
            if request.ended_at is None:
                request.reported = request.reported or request.sent_at <= asked_at - VISIBILITY_LAG_S
            else:
                request.end_reported = request.end_reported or request.ended_at <= asked_at

    @rule(
        number=st.sampled_from(NUMBERS),
        reachable=st.sampled_from([None, False, True]),
        waited=st.sampled_from([0.0, STALE_AFTER_S]),
    )
    def miss(self, number: int, reachable: bool | None, waited: float) -> None:
        self.now += waited
        self.pool.miss(f"e{number}", error="refused", reachable=reachable, now=self.now)

    def teardown(self) -> None:
        for server in self.servers.values():
            for request in server.live():
                assert self.pool.release(request.id, now=self.now, answered_by=None)
        assert not self.pool.view(self.now).in_flight.any()

    @invariant()
    def rows_and_columns_agree(self) -> None:
        view = self.pool.view(self.now)
        names = [f"e{number}" for number in self.servers]
        assert [endpoint.name for endpoint in view.endpoints] == names
        assert [row.endpoint.name for row in self.pool.rows] == names
        assert [row.index for row in self.pool.rows] == list(range(len(names)))
        columns = (view.queued_requests, view.running_requests, view.kv_utilization, view.in_flight, view.eligible)
        assert {column.shape for column in columns} == {(len(names),)}

    @invariant()
    def in_flight_is_what_lives(self) -> None:
        expected = [len(server.live()) for server in self.servers.values()]
        assert self.pool.view(self.now).in_flight.tolist() == expected
        assert [row.in_flight for row in self.pool.rows] == expected

    @invariant()
    def predictions_are_the_last_report_and_what_came_and_left_since(self) -> None:
        view = self.pool.view(self.now)
        for index, server in enumerate(self.servers.values()):
            queued, running = server.expected(self.now)
            assert view.queued_requests[index] == queued
            assert view.running_requests[index] == pytest.approx(running, nan_ok=True)

    @invariant()
    def the_cache_is_neither_emptier_than_reported_nor_more_than_full(self) -> None:
        view = self.pool.view(self.now)
        for utilization, server in zip(view.kv_utilization, self.servers.values(), strict=True):
            if not math.isnan(utilization):
                assert server.last.kv_utilization <= utilization <= 1.0


PoolMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestInterleavings = PoolMachine.TestCase
