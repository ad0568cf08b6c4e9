"""How each request ended, told afterwards; the counts that people read.

Outcomes path: Envoy's access log → **Outcome** → Pool, counters
"""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tidegate.pool.histogram import Histogram
from tidegate.pool.table import Pool

TTFT_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""From an idle small model to a full queue."""


class Result(StrEnum):
    """How a request ended, as its sender and its server would tell it."""

    ANSWERED = "answered"
    """A server's answer arrived whole; it may be a server's 4xx."""
    SERVER_ERROR = "server_error"
    """A server answered 5xx, and so did the others that were tried."""
    BROKEN = "broken"
    """The answer had begun, perhaps with status 200, and then its server failed."""
    UNSERVED = "unserved"
    """No server answered: none reachable, or every attempt failed."""
    ABORTED = "aborted"
    """The client left before the end."""
    DENIED = "denied"
    """The gateway refused the request itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """Tokens of one request as its server counted them; None: it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    """Prompt tokens that were in the server's prefix cache already."""


NO_USAGE = TokenUsage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of one request."""

    decision_id: str
    """Of the decision that sent it; empty when it went unpicked."""
    origin: Hashable
    """As in the InferenceRequest; finds the decision of a request that did not wait for it."""
    served_by: str
    """`ip:port` of the last server tried; empty when there was none."""
    result: Result
    attempts: int = 0
    """Servers tried, the last one included."""
    ttft_s: float | None = None
    """Of a stream: from the request's last byte to the answer's first, retries included; seconds. None: no stream."""
    usage: TokenUsage = NO_USAGE


class Outcomes:
    """Takes outcomes: releases what they end in the Pool, and counts them by endpoint name (empty: none served it)."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._counts: Counter[tuple[str, Result]] = Counter()
        self._tokens: Counter[tuple[str, str]] = Counter()
        self._ttft: dict[str, Histogram] = {}
        self.retries = 0
        """Attempts after the first, of all requests."""
        self.unpicked = 0
        """Requests that Envoy placed itself: the picker was away, or had no eligible endpoint."""

    @property
    def counts(self) -> Mapping[tuple[str, Result], int]:
        """How many requests ended how, by endpoint name and result."""
        return self._counts

    @property
    def tokens(self) -> Mapping[tuple[str, str], int]:
        """Tokens that servers said they used, by endpoint name and kind: prompt, completion or cached."""
        return self._tokens

    @property
    def ttft(self) -> Mapping[str, Histogram]:
        """Times to first token of streams, in seconds, by endpoint name."""
        return self._ttft

    def take(self, outcome: Outcome, now: float) -> None:
        """Take one outcome; one told twice is released once, but counted twice."""
        endpoint = self._pool.endpoint_at(outcome.served_by)
        name = endpoint.name if endpoint else ""
        self._release(outcome, now)
        self._counts[name, outcome.result] += 1
        self.retries += max(0, outcome.attempts - 1)
        if outcome.ttft_s is not None:
            self._ttft.setdefault(name, Histogram(TTFT_BUCKETS_S)).observe(outcome.ttft_s)
        self._count_tokens(name, outcome.usage)

    def doubt(self, until: float) -> None:
        """Note that outcomes may have been lost: those of any request in flight that was sent by then."""
        self._pool.doubt(until)

    def _release(self, outcome: Outcome, now: float) -> None:
        if outcome.decision_id:
            well = outcome.result is Result.ANSWERED
            self._pool.release(outcome.decision_id, now=now, answered_by=_answered_by(outcome), well=well)
            return
        self.unpicked += bool(outcome.served_by)
        # The client left, or Envoy's patience ended, before the decision was read: it may be counted at an endpoint.
        self._pool.release_from(outcome.origin, now=now)

    def _count_tokens(self, name: str, usage: TokenUsage) -> None:
        if usage is NO_USAGE:
            return
        for kind in ("prompt", "completion", "cached"):
            count: int | None = getattr(usage, f"{kind}_tokens")
            if count is not None:
                self._tokens[name, kind] += count


def _answered_by(outcome: Outcome) -> str | None:
    match outcome.result:
        case Result.ABORTED | Result.DENIED:
            return None
        case Result.UNSERVED:
            return ""
        case _:
            return outcome.served_by
