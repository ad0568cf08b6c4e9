"""The load of a server that gives iteration statistics in JSON instead of an exposition, as trtllm-serve does.

Flow: JSON array → BatchManagerStatistics of each rank → **LoadSignals**. Asking takes the iterations away, and the
array is empty where there was none since: then what the last one left counts, as long as that can still be so.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from tidegate.protocol.errors import ScrapeError, ScrapeFailure
from tidegate.protocol.signals import LoadSignals
from tidegate.publish.statistics import BatchManagerStatistics, at_rest, parse_statistics

MAX_SILENCE_S = 2.0
"""How long the last figures count while requests are left, but no iteration comes: longer than most of them take."""
MAX_RANKS = 1024
"""Most ranks that are told apart."""

_MARK = "numActiveRequests"
_RANK = "attentionDpRank"
"""With attention data parallelism there is a row for each rank, and each has requests and a KV cache of its own."""


class IterationStatistics:
    """Reads one answer after the other, and remembers the newest iteration of each rank."""

    def __init__(self) -> None:
        self._newest: dict[int, BatchManagerStatistics] = {}
        self._observed_at = 0.0

    def parse(self, body: bytes, now: float) -> LoadSignals:
        """Return the load as of the newest iterations; `observed_at` is when they came.

        Raises:
            ScrapeError: the body is no array of statistics, there was none yet, or none for too long while requests
                are left.
        """
        newest = _newest_rows(body)
        if newest:
            self._newest = {rank: parse_statistics(row) for rank, row in newest.items()}
            self._observed_at = now
            return _combine(list(self._newest.values()), now)
        if not self._newest:
            problem = "no iteration statistics yet: no request was served, or enable_iter_perf_stats: true is missing"
            raise ScrapeError(problem, reason=ScrapeFailure.NO_METRICS)
        resting = [idle for last in self._newest.values() if (idle := at_rest(last)) is not None]
        if len(resting) == len(self._newest):
            return _combine(resting, now)
        if now - self._observed_at > MAX_SILENCE_S:
            problem = (
                f"no iteration for {now - self._observed_at:.0f} s with requests left: does another read these, too?"
            )
            raise ScrapeError(problem, reason=ScrapeFailure.NO_METRICS)
        return _combine(list(self._newest.values()), self._observed_at)


def _newest_rows(body: bytes) -> dict[int, Mapping[str, Any]]:
    """Return the last row of each rank; hundreds may have piled up before it."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ScrapeError(f"malformed JSON: {error}") from error
    if not isinstance(document, list):
        raise ScrapeError("JSON, but no array of iteration statistics")
    newest: dict[int, Mapping[str, Any]] = {}
    for row in reversed(document):
        if not isinstance(row, dict) or _MARK not in row:
            raise ScrapeError(f"a JSON array, but its rows have no {_MARK}: not iteration statistics")
        rank = row.get(_RANK)
        newest.setdefault(rank if isinstance(rank, int) and 0 <= rank < MAX_RANKS else 0, row)
    return newest


def _combine(ranks: list[BatchManagerStatistics], observed_at: float) -> LoadSignals:
    """Make one load of all ranks: counts are summed, utilization is that of the fullest."""
    return LoadSignals(
        queued_requests=_sum([rank.waiting_requests for rank in ranks]),
        running_requests=_sum([rank.scheduled_requests for rank in ranks]),
        kv_utilization=max((rank.kv_utilization for rank in ranks if rank.kv_utilization is not None), default=None),
        block_size=min((rank.tokens_per_kv_block for rank in ranks if rank.tokens_per_kv_block), default=None),
        num_blocks=_sum([rank.max_kv_blocks for rank in ranks]),
        observed_at=observed_at,
    )


def _sum(values: list[int | None]) -> int | None:
    """Add counts; None when one is unknown, since a sum without it would understate the load."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
