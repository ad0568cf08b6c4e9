"""What a TensorRT-LLM batch manager said about one iteration, whichever way it spelled it.

Publishing path: statistics JSON → **BatchManagerStatistics** → families → exposition.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tidegate.protocol.composites import used_fraction, waiting_requests

TIMESTAMP_FORMAT = "%m-%d-%Y %H:%M:%S.%f"
"""How TensorRT-LLM writes an iteration's time, in the server's local time."""

_LONGEST_TIMESTAMP = len("12-31-9999 23:59:59.999999")
_ABOVE_ANY_FIGURE = 2**63  # Larger than any count or byte size a server can mean: treated as junk.
_GONE_AT_REST = (
    "active_requests",
    "scheduled_requests",
    "context_requests",
    "queued_requests",
    "completed_requests",
    "waiting_requests",
    "inflight_context_tokens",
    "generation_requests",
    "paused_requests",
    "static_context_tokens",
    "static_generation_tokens",
)
_SUMMED_OVER_RANKS = (
    *_GONE_AT_REST,
    "max_requests",
    "cpu_memory_bytes",
    "gpu_memory_bytes",
    "pinned_memory_bytes",
    "max_kv_blocks",
    "free_kv_blocks",
    "used_kv_blocks",
    "reused_kv_blocks",
    "empty_generation_slots",
)
_INFLIGHT_NAMES = ("Generation Requests", "MicroBatch ID", "Paused Requests")
_STATIC_NAMES = ("Total Generation Tokens", "Empty Generation Slots")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchManagerStatistics:
    """One iteration of the batch manager; every figure is >= 0.

    None means that the server did not say. It never becomes 0: an idle server attracts traffic.
    """

    active_requests: int | None = None
    """Requests the batch manager holds, scheduled or not; count."""
    max_requests: int | None = None
    """Most requests it would hold; count."""
    scheduled_requests: int | None = None
    """Requests in this iteration's batch; count."""
    context_requests: int | None = None
    """Scheduled requests in their context phase (prefill); count."""
    queued_requests: int | None = None
    """Requests that wait outside `active_requests`; count. Only the iteration statistics have it."""
    completed_requests: int | None = None
    """Requests that ended in this iteration; count. Only the iteration statistics have it."""
    waiting_requests: int | None = None
    """Composite: requests accepted but not scheduled; count. Source: GIE proposal 003, TotalQueuedRequests."""

    cpu_memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    pinned_memory_bytes: int | None = None

    max_kv_blocks: int | None = None
    free_kv_blocks: int | None = None
    used_kv_blocks: int | None = None
    tokens_per_kv_block: int | None = None
    reused_kv_blocks: int | None = None
    """Blocks found in the prefix cache so far; count."""
    kv_utilization: float | None = None
    """Composite: used / max KV-cache blocks; ratio in [0, 1]. Source: GIE proposal 003, KVCacheUtilization."""

    kv_transfer_ms_total: float | None = None
    """Time spent moving KV cache between servers, since the server started; milliseconds."""
    disaggregated_requests_total: int | None = None
    """Requests served with prefill elsewhere, since the server started; count."""

    inflight_context_tokens: int | None = None
    """In-flight batching: prompt tokens processed in this iteration; count."""
    generation_requests: int | None = None
    """In-flight batching: scheduled requests in their generation phase; count."""
    micro_batch_id: int | None = None
    paused_requests: int | None = None
    """In-flight batching: requests put back for want of KV cache; count."""

    static_context_tokens: int | None = None
    """Static batching: prompt tokens of the batch; count."""
    static_generation_tokens: int | None = None
    """Static batching: generated tokens of the batch; count."""
    empty_generation_slots: int | None = None
    """Static batching: places of the batch whose request has ended; count."""

    timestamp_us: int | None = None
    """When the iteration ended; microseconds since the Unix epoch."""
    iteration: int | None = None
    """Iterations since the server started; count."""


def parse_statistics(raw: Mapping[str, Any]) -> BatchManagerStatistics:
    """Return the statistics in `raw`, whichever of the two spellings it uses.

    These are the executor's iteration statistics (`LLM.get_stats()`, one element of trtllm-serve's `/metrics`) and the
    batch manager's flat display names ("Active Request Count"). A figure that is not one (wrong type, negative, NaN,
    out of range) counts as missing. A composite in `raw` is taken as it is, otherwise it is derived, when its
    ingredients are there. Never raises.
    """
    kv = _section(raw, "kvCacheStats")
    inflight = _section(raw, "inflightBatchingStats")
    # The PyTorch runtime attaches an all-zero staticBatchingStats to its in-flight figures: in-flight wins.
    static = {} if inflight else _section(raw, "staticBatchingStats")
    batching = inflight or static
    named_inflight, named_static = ({}, raw) if _is_static_batching(raw) else (raw, {})

    active = _count(raw.get("numActiveRequests"), raw.get("Active Request Count"))
    scheduled = _count(batching.get("numScheduledRequests"), raw.get("Scheduled Requests"))
    queued = _count(raw.get("numQueuedRequests"))
    waiting = _count(raw.get("Waiting Requests"))
    if waiting is None and active is not None and scheduled is not None:
        waiting = waiting_requests(active, scheduled, queued)

    used = _count(kv.get("usedNumBlocks"), raw.get("Used KV cache blocks"))
    maximum = _count(kv.get("maxNumBlocks"), raw.get("Max KV cache blocks"))
    utilization = _ratio(raw.get("Fraction used KV cache blocks"))
    if utilization is None and used is not None and maximum is not None:
        utilization = used_fraction(used, maximum)

    return BatchManagerStatistics(
        active_requests=active,
        max_requests=_count(raw.get("maxNumActiveRequests"), raw.get("Max Request Count")),
        scheduled_requests=scheduled,
        context_requests=_count(batching.get("numContextRequests"), raw.get("Context Requests")),
        queued_requests=queued,
        completed_requests=_count(raw.get("numCompletedRequests")),
        waiting_requests=waiting,
        cpu_memory_bytes=_count(raw.get("cpuMemUsage"), raw.get("Runtime CPU Memory Usage")),
        gpu_memory_bytes=_count(raw.get("gpuMemUsage"), raw.get("Runtime GPU Memory Usage")),
        pinned_memory_bytes=_count(raw.get("pinnedMemUsage"), raw.get("Runtime Pinned Memory Usage")),
        max_kv_blocks=maximum,
        free_kv_blocks=_count(kv.get("freeNumBlocks"), raw.get("Free KV cache blocks")),
        used_kv_blocks=used,
        tokens_per_kv_block=_count(kv.get("tokensPerBlock"), raw.get("Tokens per KV cache block")),
        reused_kv_blocks=_count(kv.get("reusedBlocks"), raw.get("Reused KV cache blocks")),
        kv_utilization=utilization,
        kv_transfer_ms_total=parse_figure(raw.get("KV cache transfer time")),
        disaggregated_requests_total=_count(raw.get("Request count")),
        inflight_context_tokens=_count(inflight.get("numCtxTokens"), named_inflight.get("Total Context Tokens")),
        generation_requests=_count(inflight.get("numGenRequests"), raw.get("Generation Requests")),
        micro_batch_id=_count(inflight.get("microBatchId"), raw.get("MicroBatch ID")),
        paused_requests=_count(inflight.get("numPausedRequests"), raw.get("Paused Requests")),
        static_context_tokens=_count(static.get("numCtxTokens"), named_static.get("Total Context Tokens")),
        static_generation_tokens=_count(static.get("numGenTokens"), raw.get("Total Generation Tokens")),
        empty_generation_slots=_count(static.get("emptyGenSlots"), raw.get("Empty Generation Slots")),
        timestamp_us=_microseconds(raw.get("timestamp", raw.get("Timestamp"))),
        iteration=_count(raw.get("iter"), raw.get("Iteration Counter")),
    )


def is_at_rest(last: BatchManagerStatistics, *, ended_before: int = 0) -> bool:
    """Return whether the `last` iteration of a batch manager left no request to run; then it is idle, and `emptied`.

    An engine without work does not iterate, so what it said last stands, and that still counts the requests that ended
    in the iteration: TensorRT-LLM's PyTorch executor counts the active ones when an iteration begins. KV-cache blocks
    it counts at the end.

    `ended_before`: requests that ended in earlier iterations and may be counted as active still. The overlap scheduler,
    its default, begins an iteration before it has seen which requests the one before ended.
    """
    if last.active_requests is None:
        return False
    ended = ended_before + (last.completed_requests or 0)
    return last.active_requests - ended + (last.queued_requests or 0) <= 0


def emptied(last: BatchManagerStatistics) -> BatchManagerStatistics:
    """Return `last` without its requests; KV-cache blocks, which prefixes may hold on to, are left as they were."""
    gone = {field: 0 for field in _GONE_AT_REST if getattr(last, field) is not None}
    return replace(last, **gone)


def combine_ranks(ranks: Sequence[BatchManagerStatistics]) -> BatchManagerStatistics:
    """Make one batch manager of the ranks of one model, at least one: each has requests and a KV cache of its own.

    Counts are summed, where all ranks say them: a sum without one would understate the load. Utilization is that of the
    fullest. What cannot be summed is that of the first.
    """
    first = ranks[0]
    sums: dict[str, Any] = {field: _sum([getattr(rank, field) for rank in ranks]) for field in _SUMMED_OVER_RANKS}
    fractions = [rank.kv_utilization for rank in ranks if rank.kv_utilization is not None]
    return replace(first, **sums, kv_utilization=max(fractions, default=None))


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _section(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = raw.get(key)
    return section if isinstance(section, Mapping) else {}


def _is_static_batching(raw: Mapping[str, Any]) -> bool:
    """Tell which batching a flat "Total Context Tokens" belongs to: both have one, and only its company differs."""
    return not any(name in raw for name in _INFLIGHT_NAMES) and any(name in raw for name in _STATIC_NAMES)


def parse_figure(value: object) -> float | None:
    """Return a figure that a server can mean; None for what is no number, negative, NaN or out of range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # NaN fails both comparisons, and Infinity the second.
    return value if 0 <= value < _ABOVE_ANY_FIGURE else None


def _count(*spellings: object) -> int | None:
    """Return the first of `spellings` that is a whole number."""
    for value in spellings:
        number = parse_figure(value)
        if number is not None and number == int(number):
            return int(number)
    return None


def _ratio(value: object) -> float | None:
    number = parse_figure(value)
    return number if number is not None and number <= 1 else None


def _microseconds(text: object) -> int | None:
    """Return local time `text` as microseconds since the epoch; None when empty, as early Python runtimes leave it."""
    if not isinstance(text, str) or len(text) > _LONGEST_TIMESTAMP:
        return None
    try:
        moment = datetime.strptime(text, TIMESTAMP_FORMAT).astimezone()
        # Whole seconds apart from the rest: a float of today's epoch in microseconds would round.
        seconds = int(moment.replace(microsecond=0).timestamp())
    except (ValueError, OverflowError, OSError):
        return None
    return seconds * 1_000_000 + moment.microsecond if seconds >= 0 else None
