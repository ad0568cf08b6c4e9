"""What a simulated server publishes is what its batch manager does, in every engine's names."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from frontends import MODEL, simulated_server
from processes import until
from tidegate.cli.sim import SIMULATED_ENGINES
from tidegate.frontend.metrics import EngineMetrics
from tidegate.protocol.engines import engine_named
from tidegate.protocol.load import parse_signals
from tidegate.protocol.signals import LoadSignals
from tidegate.publish.statistics import parse_statistics
from tidegate.simulator.cost import CostModel
from tidegate.simulator.iteration import BatchLoad
from tidegate.simulator.limits import Limits

# Each request takes 2 of the 8 blocks for its prompt of 64 tokens, and a third, promised, for its answer of 30.
LIMITS = Limits(max_batch_size=3, num_blocks=8, tokens_per_block=32)
SLOW = CostModel(iteration_base_s=0.4)
PATHS = {"trtllm-serve": "/prometheus/metrics"}


async def scrape(url: str, engine: str) -> LoadSignals:
    async with aiohttp.request("GET", url + PATHS.get(engine, "/metrics")) as answer:
        assert answer.status == 200
        return parse_signals(await answer.read(), engine_named(engine), observed_at=0.0)


@contextlib.asynccontextmanager
async def open_streams(url: str, count: int) -> AsyncIterator[None]:
    """Hold that many streams open, none of which ends by itself in time."""
    session = aiohttp.ClientSession()

    async def stream(number: int) -> None:
        body = {"model": MODEL, "prompt": f"{number:4}" * 64, "max_tokens": 30, "stream": True}
        async with session.post(f"{url}/v1/completions", data=json.dumps(body)) as answer:
            await answer.read()

    streams = [asyncio.create_task(stream(number)) for number in range(count)]
    try:
        yield
    finally:
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        await session.close()


@pytest.mark.parametrize("engine", SIMULATED_ENGINES)
async def test_the_load_rises_under_load_and_falls_back_when_clients_leave(engine: str) -> None:
    mapping = engine_named(engine)

    def known(queued: int, running: int, used: int) -> tuple[object, ...]:
        published = mapping.kv_utilization and "kv_utilization" not in mapping.withdrawn
        return queued, running, used / 8 if published else None

    async def says(*expected: object) -> bool:
        signals = await scrape(url, engine)
        return (signals.queued_requests, signals.running_requests, signals.kv_utilization) == expected

    async with simulated_server(LIMITS, SLOW, engine=engine) as url:
        assert await says(*known(0, 0, 0))
        async with open_streams(url, 7):
            # Two fit; each has soon taken a third block, for its answer.
            await until(lambda: says(*known(5, 2, 6)))
        await until(lambda: says(*known(0, 0, 0)))
        signals = await scrape(url, engine)
    assert signals.block_size == (32 if mapping.block_size else None)
    assert signals.num_blocks == (8 if mapping.num_blocks else None)


async def test_trtllm_serve_gives_each_iteration_once_as_json() -> None:
    async def drain() -> list[dict[str, object]]:
        async with aiohttp.request("GET", f"{url}/metrics") as answer:
            iterations: list[dict[str, object]] = await answer.json()
            return iterations

    async with simulated_server(LIMITS, engine="trtllm-serve") as url:
        body = {"model": MODEL, "prompt": "tide", "max_tokens": 3}
        async with aiohttp.request("POST", f"{url}/v1/completions", data=json.dumps(body)) as answer:
            assert answer.status == 200
        iterations = await drain()
        assert [iteration["iter"] for iteration in iterations] == [1, 2, 3]
        assert [parse_statistics(one).scheduled_requests for one in iterations] == [1, 1, 1]
        assert await drain() == []


async def test_triton_counts_the_lengths_of_finished_requests() -> None:
    async with simulated_server() as url:
        body = {"text_input": "a" * 400, "max_tokens": 20}
        async with aiohttp.request("POST", f"{url}/v2/models/{MODEL}/generate", data=json.dumps(body)) as answer:
            assert answer.status == 200
        async with aiohttp.request("GET", f"{url}/metrics") as answer:
            text = await answer.text()
    labels = f'{{model="{MODEL}",response_metric_type="total_%s_tokens",version="1"}}'
    assert f"nv_llm_input_token_len_sum{labels % 'input'} 100\n" in text
    assert f"nv_llm_output_token_len_sum{labels % 'output'} 20\n" in text


def test_iterations_that_nobody_fetches_are_dropped_oldest_first() -> None:
    metrics = EngineMetrics(engine_named("trtllm-serve"), LIMITS, model=MODEL, kept_iterations=2)
    for number in range(5):
        metrics.observe_iteration(
            BatchLoad(
                iteration=number,
                active_requests=1,
                queued_requests=0,
                used_blocks=0,
                reused_blocks=0,
                missed_blocks=0,
                new_blocks=0,
            )
        )
    assert [iteration["iter"] for iteration in json.loads(metrics.drain_statistics())] == [3, 4]
