"""What the iterations of an LLM of TensorRT-LLM's LLM API add up to.

Publishing path: rows of `LLM.get_stats()` → **LlmIterations** → BatchManagerStatistics → Reporter. Each look takes the
pending rows away, and an engine without work leaves none: what it said last, "1 active", would stand for ever.
"""

import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tidegate.publish.statistics import (
    BatchManagerStatistics,
    combine_ranks,
    emptied,
    is_at_rest,
    parse_figure,
    parse_statistics,
)

QUIET_S = 1.0
"""How long there must be no iteration before the late ones count: longer than most take."""
LATE_ITERATIONS = 16
"""How many iterations a request that has ended may still be counted as active; more than pipelines have stages."""

_RANK_NAMES = ("attentionDpRank", "rank")
_MAX_RANK = 1023
_ENDED = "GENERATION_COMPLETE"


class LlmIterations:
    """Takes one batch of pending iterations after the other; says what is to be published, and when it is at rest."""

    def __init__(self) -> None:
        self._newest: dict[int, BatchManagerStatistics] = {}
        self._ended: deque[int] = deque(maxlen=LATE_ITERATIONS)
        self._seen_at = 0.0
        self._resting = False
        self._transfer_ms = 0.0
        self._transfers = 0

    @property
    def any_seen(self) -> bool:
        """Whether there ever was an iteration."""
        return bool(self._newest)

    @property
    def resting(self) -> bool:
        """Whether the last `take` found nothing new, and all requests to have ended."""
        return self._resting

    def take(self, rows: Iterable[object], now: float) -> BatchManagerStatistics | None:
        """Return what is to be published now, or None where nothing is new.

        Of each gauge the newest row counts, of the counters all do. What is no row is passed over.

        Args:
            rows: as `LLM.get_stats` gives them, oldest first: mappings, or their JSON. Under attention data parallelism
                there is one for each rank of an iteration.
            now: seconds, monotonic.
        """
        iterations = [row for row in map(_decode, rows) if row]
        if not iterations:
            return self._rest(now)
        if self._resting:
            self._ended.clear()  # whoever ended before the rest is counted no more
        self._seen_at, self._resting = now, False
        by_rank: dict[int, list[Mapping[str, Any]]] = {}
        for row in iterations:
            by_rank.setdefault(_rank(row), []).append(row)
            self._count_transfers(row)
        self._newest = {rank: parse_statistics(of_rank[-1]) for rank, of_rank in sorted(by_rank.items())}
        # All ranks iterate together, so whether they are at rest is seen at the first.
        for row in by_rank[min(by_rank)][-LATE_ITERATIONS:]:
            self._ended.append(parse_statistics(row).completed_requests or 0)
        published = self._published()
        # What the newest iteration leaves to run, where that is nothing: rows that have waited for somebody to ask
        # would show an idle server as busy.
        alone = len(self._newest) == 1
        return emptied(published) if alone and is_at_rest(published) else published

    def _rest(self, now: float) -> BatchManagerStatistics | None:
        """Return the statistics without requests, once, when all of them have ended.

        They have when the newest row says so. It may also count requests that earlier rows have reported as ended, and
        of several ranks only the first tells of its own that have ended; but only silence tells such requests from
        others: with work left the engine iterates on.
        """
        quiet = now - self._seen_at >= QUIET_S
        if self._resting or not self._newest or (len(self._newest) > 1 and not quiet):
            return None
        first = next(iter(self._newest.values()))
        ended_before = sum(list(self._ended)[:-1]) if quiet else 0
        if not is_at_rest(first, ended_before=ended_before):
            return None
        self._resting = True
        return emptied(self._published())

    def _published(self) -> BatchManagerStatistics:
        combined = combine_ranks(list(self._newest.values()))
        if not self._transfers:
            return combined
        return replace(combined, kv_transfer_ms_total=self._transfer_ms, disaggregated_requests_total=self._transfers)

    def _count_transfers(self, row: Mapping[str, Any]) -> None:
        """Add the ended requests of an iteration whose prefill and decoding had different servers."""
        requests = row.get("requestStats")
        for request in requests if isinstance(requests, list) else ():
            if not isinstance(request, Mapping) or request.get("stage") != _ENDED:
                continue
            transfer = request.get("disServingStats")
            milliseconds = parse_figure(transfer.get("kvCacheTransferMS")) if isinstance(transfer, Mapping) else None
            if milliseconds is not None:
                self._transfer_ms += milliseconds
                self._transfers += 1


def _decode(row: object) -> Mapping[str, Any]:
    """Return a row, empty where it is none."""
    if isinstance(row, str | bytes):
        try:
            row = json.loads(row)
        except (ValueError, RecursionError):
            return {}
    return row if isinstance(row, Mapping) else {}


def _rank(row: Mapping[str, Any]) -> int:
    for name in _RANK_NAMES:
        rank = row.get(name)
        if isinstance(rank, int) and 0 <= rank <= _MAX_RANK:
            return rank
    return 0
