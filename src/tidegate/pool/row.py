"""One endpoint's row: its last report, and what we did since that the report cannot have seen."""

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import islice, takewhile

from tidegate.pool.endpoint import Endpoint
from tidegate.protocol.signals import LoadSignals

VISIBILITY_LAG_S = 0.05
"""From the pick until the request shows in the server's gauges: the way through the gateway, and one iteration.

Too short, a burst is forgotten at the next scrape; too long, a request counts twice until the scrape after that.
"""
REPAIR_AFTER_S = 2.0
"""How long a server must report fewer requests than we count before the difference is taken for lost outcomes.

Holds for requests whose end may not have been told: the log of outcomes broke off after they were sent.
"""
UNDOUBTED_REPAIR_AFTER_S = 120.0
"""The same for all other requests. A server's figures may stand still while it works: trtllm-serve's do after a pause
until a request finishes, and everybody's do during a long prefill."""
UNTRACKED_S = 10.0
"""How long a request whose end will not be told counts at an endpoint that does not report."""
EJECTION_S = 1.0
"""How long an endpoint that failed a request is passed over; doubled by each failure in a row."""
MAX_EJECTION_S = 30.0
STUMBLES = 3
"""Bad answers in a row after which an endpoint is passed over. One alone may be the fault of its request."""

NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One request on its way: who it is, when it was sent (monotonic seconds), how long its prompt is about."""

    id: str
    at: float
    prompt_tokens: float
    tracked: bool = True
    """Whether its end will be told. If not, it counts until a report has seen it."""
    origin: Hashable = None
    """What tells it from all other requests at the gateway, besides the id; None: nothing."""


class Row:
    """The state behind one endpoint's cells. Only the Pool changes it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.index = 0
        self.signals: LoadSignals | None = None
        self.reachable = True
        self.error = ""
        self.picks = 0
        self.failures = 0
        self._stumbles = 0
        self.ejected_until = float("-inf")
        self._unseen: OrderedDict[str, Dispatch] = OrderedDict()  # sent after the last report was asked for
        self._untracked: OrderedDict[str, Dispatch] = OrderedDict()  # likewise; nobody will tell their end
        self._seen: OrderedDict[str, Dispatch] = OrderedDict()  # counted by the last report
        self._unseen_tokens = 0.0
        self._ended: deque[float] = deque()  # ends of seen requests since the last report was asked for
        self._excess_since: float | None = None
        self._excess = 0
        self._doubted_at = float("-inf")

    @property
    def in_flight(self) -> int:
        """Requests we sent there that have not ended."""
        return len(self._unseen) + len(self._untracked) + len(self._seen)

    def add(self, dispatch: Dispatch) -> None:
        """Count a request as sent."""
        sent = self._unseen if dispatch.tracked else self._untracked
        sent[dispatch.id] = dispatch
        self._unseen_tokens += dispatch.prompt_tokens
        self.picks += 1

    def remove(self, dispatch: Dispatch, now: float) -> None:
        """Count a request as ended."""
        sent = self._unseen if dispatch.tracked else self._untracked
        if sent.pop(dispatch.id, None) is not None:
            self._unseen_tokens -= dispatch.prompt_tokens
        elif self._seen.pop(dispatch.id, None) is not None:
            self._ended.append(now)

    def expire(self, now: float) -> list[Dispatch]:
        """Return and forget the untracked requests that no report has come to see for long enough."""
        return self._take_before(self._untracked, now - UNTRACKED_S)

    def eject(self, now: float) -> None:
        """Pass the endpoint over for a while. What fails together counts once: the requests a dead server held."""
        if self.ejected_until <= now:
            doublings = min(self.failures, 10)  # a server can stay dead until 2**failures no longer fits a float
            self.ejected_until = now + min(EJECTION_S * 2**doublings, MAX_EJECTION_S)
            self.failures += 1

    @property
    def stumbling(self) -> bool:
        """Whether its last answer was a bad one."""
        return self._stumbles > 0

    def stumble(self, now: float, *, alone: bool) -> None:
        """Note a bad answer: broken off, or a server error. Several in a row eject the endpoint.

        It would otherwise look idle, and draw all traffic, because it fails so fast. But only if it is `alone` in that:
        a client's nonsense, to which many servers answer 500, must not shut out one after the other.
        """
        self._stumbles += 1
        if self._stumbles >= STUMBLES and alone:
            self.eject(now)

    def answer_well(self) -> None:
        """Note a good answer."""
        self.failures = self._stumbles = 0

    def forgive(self) -> None:
        """Let requests go there again."""
        self.answer_well()
        self.ejected_until = float("-inf")

    def doubt(self, until: float) -> list[Dispatch]:
        """Note that the ends of requests sent by then may not be told; returns those forgotten at once.

        Where reports tell how many requests there are, they will repair the count. Elsewhere nothing ever would.
        """
        self._doubted_at = max(self._doubted_at, until)
        if self.signals is not None and _counts_requests(self.signals):
            return []
        forgotten = list(takewhile(lambda dispatch: dispatch.at <= until, self._seen.values()))
        for dispatch in forgotten:
            del self._seen[dispatch.id]
        return forgotten + self._take_before(self._unseen, until)

    def correct(self, signals: LoadSignals, started_at: float) -> list[Dispatch]:
        """Take a report asked for at `started_at`; returns the dispatches that no outcome will end any more."""
        self.signals = signals
        visible_until = started_at - VISIBILITY_LAG_S
        for dispatch in self._take_before(self._unseen, visible_until):
            self._seen[dispatch.id] = dispatch
        done = self._take_before(self._untracked, visible_until)
        if not self._unseen and not self._untracked:
            self._unseen_tokens = 0.0  # sums of floats drift
        # We hear of an end after the server, so an end heard of before the scrape was asked for is in its figures.
        while self._ended and self._ended[0] <= started_at:
            self._ended.popleft()
        return done + self._repair(signals)

    def predict(self) -> tuple[float, float, float]:
        """Return queued requests, running requests and KV utilization as they should be now; NaN: not reported."""
        signals = self.signals
        if signals is None:
            return NAN, NAN, NAN
        # What we sent since waits; what ended since made room, which the queue fills first.
        change = len(self._unseen) + len(self._untracked) - len(self._ended)
        waiting, batch = signals.queued_requests, signals.running_requests
        queued = NAN if waiting is None else max(0, waiting + change)
        running = NAN if batch is None else max(0, batch + min(0, (waiting or 0) + change))
        if waiting is not None:
            if batch is None:
                running = max(0, self.in_flight - queued)
            # Engines publish when an iteration ends. During a long prefill the figures are old however fresh the
            # scrape, but what we sent and have not seen end must be there: what does not run, waits.
            queued = max(queued, self.in_flight - running)
        return queued, running, self._predict_kv(signals)

    def _take_before(self, sent: OrderedDict[str, Dispatch], until: float) -> list[Dispatch]:
        """Remove and return those of `sent`, which no report has seen yet, that were sent by then."""
        taken = []
        while sent and next(iter(sent.values())).at <= until:
            _, dispatch = sent.popitem(last=False)
            self._unseen_tokens -= dispatch.prompt_tokens
            taken.append(dispatch)
        return taken

    def _predict_kv(self, signals: LoadSignals) -> float:
        if signals.kv_utilization is None:
            return NAN
        capacity = (signals.num_blocks or 0) * (signals.block_size or 0)
        coming = self._unseen_tokens / capacity if capacity else 0.0
        return min(1.0, signals.kv_utilization + coming)

    def _repair(self, signals: LoadSignals) -> list[Dispatch]:
        """Return and forget the oldest requests that the server, report after report, does not have."""
        if not _counts_requests(signals):
            return []
        excess = len(self._seen) - (signals.queued_requests or 0) - (signals.running_requests or 0)
        if excess <= 0:
            self._excess_since = None
            return []
        if self._excess_since is None:
            self._excess_since, self._excess = signals.observed_at, excess
        self._excess = min(self._excess, excess)
        waited_s = signals.observed_at - self._excess_since
        if waited_s < REPAIR_AFTER_S:
            return []
        oldest = list(islice(self._seen.values(), self._excess))
        if waited_s < UNDOUBTED_REPAIR_AFTER_S:
            oldest = [dispatch for dispatch in oldest if dispatch.at <= self._doubted_at]
        if oldest:
            self._excess_since = None
        for dispatch in oldest:
            del self._seen[dispatch.id]
        return oldest


def _counts_requests(signals: LoadSignals) -> bool:
    return signals.queued_requests is not None and signals.running_requests is not None
