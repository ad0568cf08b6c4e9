"""Iteration statistics in TensorRT-LLM's own JSON shape, key for key.

Flow: BatchLoad → **statistics** → publish.statistics.parse_statistics, or JSON at trtllm-serve's `/metrics`.
"""

from datetime import datetime
from typing import Any

from tidegate.publish.statistics import TIMESTAMP_FORMAT
from tidegate.simulator.iteration import BatchLoad
from tidegate.simulator.limits import Limits


def render_statistics(load: BatchLoad, limits: Limits, ended_at: datetime) -> dict[str, Any]:
    """Return what `LLM.get_stats()` would say of an iteration that ended at `ended_at`, local time.

    Memory usages are 0: simulated blocks take none. Source: TensorRT-LLM's executor, `IterationStats`.
    """
    return {
        "iter": load.iteration,
        "timestamp": ended_at.strftime(TIMESTAMP_FORMAT),
        "iterLatencyMS": load.duration_s * 1000,
        "newActiveRequestsQueueLatencyMS": load.queue_latency_s * 1000,
        "numNewActiveRequests": load.new_active_requests,
        "numActiveRequests": load.active_requests,
        "numQueuedRequests": load.queued_requests,
        "numCompletedRequests": load.completed_requests,
        "maxNumActiveRequests": limits.max_batch_size,
        "maxBatchSizeStatic": limits.max_batch_size,
        "maxBatchSizeRuntime": limits.max_batch_size,
        "maxNumTokensStatic": limits.max_tokens_per_iteration,
        "maxNumTokensRuntime": limits.max_tokens_per_iteration,
        "cpuMemUsage": 0,
        "gpuMemUsage": 0,
        "pinnedMemUsage": 0,
        "kvCacheStats": _render_kv_cache(load, limits),
        "inflightBatchingStats": _render_batch(load),
    }


def _render_kv_cache(load: BatchLoad, limits: Limits) -> dict[str, float]:
    prompt_blocks = load.reused_blocks + load.missed_blocks
    return {
        "maxNumBlocks": limits.num_blocks,
        "freeNumBlocks": limits.num_blocks - load.used_blocks,
        "usedNumBlocks": load.used_blocks,
        "tokensPerBlock": limits.tokens_per_block,
        "allocTotalBlocks": load.new_blocks + load.reused_blocks,
        "allocNewBlocks": load.new_blocks,
        "reusedBlocks": load.reused_blocks,
        "missedBlocks": load.missed_blocks,
        "cacheHitRate": load.reused_blocks / prompt_blocks if prompt_blocks else 0.0,
    }


def _render_batch(load: BatchLoad) -> dict[str, float]:
    return {
        "numScheduledRequests": load.scheduled_requests,
        "numContextRequests": load.context_requests,
        "numGenRequests": load.generation_requests,
        "numPausedRequests": load.paused_requests,
        "numCtxTokens": load.context_tokens,
        "microBatchId": 0,
        "avgNumDecodedTokensPerIter": 1.0 if load.generation_requests else 0.0,
    }
