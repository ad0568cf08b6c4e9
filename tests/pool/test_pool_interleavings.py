"""Any interleaving of what happens to a pool, against a list of dispatches that is scanned from end to end."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from factories import STALE_AFTER_S, endpoint, signals
from tidegate.pool.row import VISIBILITY_LAG_S
from tidegate.pool.table import Pool
from tidegate.protocol.signals import LoadSignals

NUMBERS = range(4)
# Steps on both sides of the visibility lag and of staleness; eighths, so that sums are exact.
STEPS = st.sampled_from([0.0, 0.03125, 0.0625, 1.0, STALE_AFTER_S])
COUNTS = st.none() | st.integers(0, 5)


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
    sent: list[Sent] = field(default_factory=list)

    def live(self) -> list[Sent]:
        return [request for request in self.sent if request.ended_at is None]

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
        return queued if batch is None else max(queued, ours - running), running


class PoolMachine(RuleBasedStateMachine):
    """Drives a Pool and the model side by side. Reports are honest: nothing of ours that still runs is missing."""

    @initialize()
    def start(self) -> None:
        self.pool = Pool(stale_after_s=STALE_AFTER_S)
        self.now = 100.0
        self.serial = 0
        self.servers: dict[int, Server] = {}
        self.gone: list[str] = []

    @rule(step=STEPS)
    def pass_time(self, step: float) -> None:
        self.now += step

    @rule(numbers=st.lists(st.sampled_from(NUMBERS), unique=True))
    def set_endpoints(self, numbers: list[int]) -> None:
        self.pool.set_endpoints(map(endpoint, numbers))
        for number in self.servers.keys() - set(numbers):
            self.gone += [request.id for request in self.servers.pop(number).live()]
        self.servers = {number: self.servers.get(number, Server()) for number in numbers}

    @precondition(lambda self: self.servers)
    @rule(data=st.data(), quarter_tokens=st.integers(0, 4000))
    def dispatch(self, data: Any, quarter_tokens: int) -> None:
        index = data.draw(st.sampled_from(range(len(self.servers))))
        number = list(self.servers)[index]
        self.serial += 1
        request = Sent(f"r{self.serial}", number, self.now)
        self.pool.dispatch(index, request.id, now=self.now, prompt_tokens=quarter_tokens / 4)
        self.servers[number].sent.append(request)

    @precondition(lambda self: any(server.live() for server in self.servers.values()))
    @rule(data=st.data(), blame=st.sampled_from([None, "", "itself", "192.0.2.1:8000"]))
    def release(self, data: Any, blame: str | None) -> None:
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

    @rule(number=st.sampled_from(NUMBERS), queued=COUNTS, others=COUNTS, kv=st.none() | st.floats(0, 1), took=STEPS)
    def report(self, number: int, queued: int | None, others: int | None, kv: float | None, took: float) -> None:
        """Report `queued` waiting, and all of ours beside the requests of `others` running, asked for `took` ago."""
        server = self.servers.get(number, Server())
        asked_at = self.now - took
        if server.last is not None:  # one scrape at a time
            asked_at = max(asked_at, server.last.observed_at)
        running = None if others is None else others + len(server.live())
        answer = signals(queued, running, kv, at=self.now, num_blocks=10, block_size=100)
        self.pool.report(f"e{number}", answer, started_at=asked_at)
        server.last = answer
        for request in server.sent:
            if request.ended_at is None:
                request.reported = request.reported or request.sent_at <= asked_at - VISIBILITY_LAG_S
            else:
                request.end_reported = request.end_reported or request.ended_at <= asked_at

    @rule(number=st.sampled_from(NUMBERS), unreachable=st.booleans())
    def miss(self, number: int, unreachable: bool) -> None:
        self.pool.miss(f"e{number}", error="refused", unreachable=unreachable)

    @rule()
    def release_everything(self) -> None:
        for server in self.servers.values():
            for request in server.live():
                assert self.pool.release(request.id, now=self.now, answered_by=None)
                request.ended_at = self.now
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


PoolMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestInterleavings = PoolMachine.TestCase
