"""How each request ended, told afterwards; the counts that people read.

Outcomes path: Envoy's access log → **Outcome** → Pool, counters
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tidegate.pool.table import Pool


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
class Outcome:
    """The end of one request."""

    decision_id: str
    """Of the decision that sent it; empty when it went unpicked."""
    served_by: str
    """`ip:port` of the last server tried; empty when there was none."""
    result: Result


class Outcomes:
    """Takes outcomes: releases what they end in the Pool, and counts them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._counts: Counter[tuple[str, Result]] = Counter()
        self.unpicked = 0
        """Requests that Envoy placed itself: the picker was away, or decided by another process."""

    @property
    def counts(self) -> Mapping[tuple[str, Result], int]:
        """How many requests ended how, by endpoint name (empty: none served it, or it has left the pool)."""
        return self._counts

    def take(self, outcome: Outcome, now: float) -> None:
        """Take one outcome; one told twice is released once, but counted twice."""
        known = self._pool.release(outcome.decision_id, now=now, answered_by=_answered_by(outcome))
        self.unpicked += not known
        endpoint = self._pool.endpoint_at(outcome.served_by)
        self._counts[endpoint.name if endpoint else "", outcome.result] += 1


def _answered_by(outcome: Outcome) -> str | None:
    match outcome.result:
        case Result.ABORTED | Result.DENIED:
            return None
        case Result.UNSERVED:
            return ""
        case _:
            return outcome.served_by
