"""The two composite metrics that load balancing needs, from the counts that a batch manager reports.

Publishing and signals paths: batch-manager counts → **composites** → exposition, or LoadSignals.
"""


def waiting_requests(active: int, scheduled: int, queued: int | None = None) -> int:
    """Return the requests accepted but not scheduled; count, >= 0.

    `queued` is what the statistics count outside `active`, where they do. Source: GIE proposal 003,
    TotalQueuedRequests; tensorrtllm_backend PR #725.
    """
    # Requests also wait outside "active": TensorRT-LLM issue #3376 shows 1 active, 1 scheduled and 7 queued.
    return max(0, active - scheduled + (queued or 0))


def used_fraction(used: int, maximum: int) -> float:
    """Return the used share of the KV-cache blocks; ratio in [0, 1], 0 when there are no blocks.

    Source: GIE proposal 003, KVCacheUtilization; tensorrtllm_backend PR #725.
    """
    if maximum <= 0:
        return 0.0
    return min(1.0, max(0.0, used / maximum))
