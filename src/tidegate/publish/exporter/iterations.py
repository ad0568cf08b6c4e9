"""The load of a server that gives iteration statistics in JSON instead of an exposition, as trtllm-serve does.

Flow: JSON array → LlmIterations → **LoadSignals**. Asking takes the iterations away, and the array is empty where
there was none since: then what the last one left counts, as long as that can still be so.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from tidegate.protocol.errors import ScrapeError, ScrapeFailure
from tidegate.protocol.signals import LoadSignals
from tidegate.publish.llm_iterations import LlmIterations
from tidegate.publish.statistics import BatchManagerStatistics

MAX_SILENCE_S = 2.0
"""How long the last figures count while requests are left, but no iteration comes: longer than most of them take."""

_MARK = "numActiveRequests"


class IterationStatistics:
    """Reads one answer after the other, and remembers what they add up to."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: a server that restarts without statistics would else count as idle for ever."""
        self._iterations = LlmIterations()
        self._known: BatchManagerStatistics | None = None
        self._observed_at = 0.0

    def parse(self, body: bytes, now: float) -> LoadSignals:
        """Return the load as of the newest iteration; `observed_at` is when that came, of an idle server `now`.

        Raises:
            ScrapeError: the body is no array of statistics, there was none yet, or none for too long while requests
                are left.
        """
        news = self._iterations.take(_rows(body), now)
        if news is not None:
            self._known = news
        if self._known is None:
            problem = "no iteration statistics yet: no request was served, or enable_iter_perf_stats: true is missing"
            raise ScrapeError(problem, reason=ScrapeFailure.NO_METRICS)
        if news is not None or self._iterations.resting:
            self._observed_at = now
        silent_s = now - self._observed_at
        if silent_s > MAX_SILENCE_S:
            problem = f"no iteration for {silent_s:.0f} s with requests left: does another read these, too?"
            raise ScrapeError(problem, reason=ScrapeFailure.NO_METRICS)
        return _load(self._known, self._observed_at)


def _rows(body: bytes) -> list[Mapping[str, Any]]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ScrapeError(f"malformed JSON: {error}") from error
    if not isinstance(document, list):
        raise ScrapeError("JSON, but no array of iteration statistics")
    if not all(isinstance(row, dict) and _MARK in row for row in document):
        raise ScrapeError(f"a JSON array, but its rows have no {_MARK}: not iteration statistics")
    return document


def _load(statistics: BatchManagerStatistics, observed_at: float) -> LoadSignals:
    return LoadSignals(
        queued_requests=statistics.waiting_requests,
        running_requests=statistics.scheduled_requests,
        kv_utilization=statistics.kv_utilization,
        block_size=statistics.tokens_per_kv_block or None,
        num_blocks=statistics.max_kv_blocks,
        observed_at=observed_at,
    )
