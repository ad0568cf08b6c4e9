"""The statistics must read as TensorRT-LLM's own."""

from datetime import datetime

from tidegate.publish.statistics import parse_statistics
from tidegate.simulator.batch_manager import BatchManager
from tidegate.simulator.cost import CostModel
from tidegate.simulator.limits import Limits
from tidegate.simulator.request import Request
from tidegate.simulator.statistics import render_statistics

ENDED_AT = datetime(2025, 3, 4, 5, 6, 7, 89)  # noqa: DTZ001 - TensorRT-LLM writes local time without a zone


def test_the_statistics_have_every_key_of_an_in_flight_batching_executor() -> None:
    limits = Limits(num_blocks=100)
    statistics = render_statistics(BatchManager(limits, CostModel()).load(), limits, ENDED_AT)
    assert statistics["timestamp"] == "03-04-2025 05:06:07.000089"
    assert set(statistics) == {
        "iter", "timestamp", "iterLatencyMS", "newActiveRequestsQueueLatencyMS", "numNewActiveRequests",
        "numActiveRequests", "numQueuedRequests", "numCompletedRequests", "maxNumActiveRequests", "maxBatchSizeStatic",
        "maxBatchSizeRuntime", "maxNumTokensStatic", "maxNumTokensRuntime", "cpuMemUsage", "gpuMemUsage",
        "pinnedMemUsage", "kvCacheStats", "inflightBatchingStats",
    }  # fmt: skip
    assert set(statistics["kvCacheStats"]) == {
        "maxNumBlocks", "freeNumBlocks", "usedNumBlocks", "tokensPerBlock", "allocTotalBlocks", "allocNewBlocks",
        "reusedBlocks", "missedBlocks", "cacheHitRate",
    }  # fmt: skip
    assert set(statistics["inflightBatchingStats"]) == {
        "numScheduledRequests", "numContextRequests", "numGenRequests", "numPausedRequests", "numCtxTokens",
        "microBatchId", "avgNumDecodedTokensPerIter",
    }  # fmt: skip


def test_the_publisher_reads_the_managers_own_figures() -> None:
    limits = Limits(max_batch_size=3, num_blocks=6, tokens_per_block=16)  # room for two of these requests
    manager = BatchManager(limits, CostModel())
    for number in range(7):
        manager.submit(Request(request_id=str(number), prompt_tokens=32, max_tokens=16), 0.0)
    iteration = manager.step(0.5)
    assert iteration is not None

    parsed = parse_statistics(render_statistics(iteration.load, limits, ENDED_AT))

    assert (parsed.active_requests, parsed.scheduled_requests, parsed.queued_requests) == (3, 2, 4)
    assert parsed.waiting_requests == 5
    assert (parsed.used_kv_blocks, parsed.free_kv_blocks, parsed.max_kv_blocks) == (4, 2, 6)
    assert parsed.kv_utilization == 4 / 6
    assert parsed.tokens_per_kv_block == 16
    assert (parsed.context_requests, parsed.inflight_context_tokens, parsed.iteration) == (2, 64, 1)


def test_an_idle_server_says_zero() -> None:
    limits = Limits()
    parsed = parse_statistics(render_statistics(BatchManager(limits, CostModel()).load(), limits, ENDED_AT))
    assert (parsed.active_requests, parsed.queued_requests, parsed.waiting_requests) == (0, 0, 0)
    assert (parsed.scheduled_requests, parsed.used_kv_blocks, parsed.kv_utilization) == (0, 0, 0)
