"""What the frontend passes on at /metrics: Triton's own, once for all who ask, and what it lacks."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from servers import ModelServer, model_server
from tidegate.protocol.errors import ScrapeError
from tidegate.publish.exporter.passed_on import PassedOnMetrics
from tidegate.scrape.http import HttpUrl
from tritons import parse

INGREDIENTS = b"""\
# HELP nv_inference_count Number of inferences
# TYPE nv_inference_count counter
nv_inference_count{model="m",version="1"} 3
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="m",request_type="active",version="1"} 9
nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"} 4
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="m",version="1"} 1
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="m",version="1"} 4
"""


@pytest.fixture
async def triton() -> AsyncIterator[ModelServer]:
    async with model_server("triton") as server:
        yield server


@pytest.fixture
async def metrics(triton: ModelServer) -> AsyncIterator[PassedOnMetrics]:
    passed_on = PassedOnMetrics(HttpUrl("127.0.0.1", triton.port, "/metrics"))
    yield passed_on
    passed_on.close()


async def test_missing_composites_are_added_and_all_else_is_passed_on(
    triton: ModelServer, metrics: PassedOnMetrics
) -> None:
    triton.metrics = INGREDIENTS

    answer = await metrics.fetch()

    added = set(answer.splitlines()) - set(INGREDIENTS.splitlines())
    assert added == {
        b'nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 5',
        b'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m",version="1"} 0.25',
    }
    assert parse(INGREDIENTS.decode()).items() <= parse(answer.decode()).items()


async def test_what_lacks_nothing_or_cannot_be_read_is_passed_on_as_it_is(
    triton: ModelServer, metrics: PassedOnMetrics
) -> None:
    for body in (b"# nothing of an LLM\nup 1\n", INGREDIENTS + b'nv_trt_llm_request_metrics{model="m" 1\n'):
        triton.metrics = body

        assert await metrics.fetch() == body


async def test_all_who_ask_at_the_same_time_share_one_get(triton: ModelServer, metrics: PassedOnMetrics) -> None:
    triton.metrics_release.clear()
    asking = [asyncio.create_task(metrics.fetch()) for _ in range(10)]
    while not triton.scrapes_waiting:
        await asyncio.sleep(0)
    asking[0].cancel()
    triton.metrics_release.set()

    answers = await asyncio.gather(*asking[1:])

    assert (len(set(answers)), triton.scraped) == (1, 1)


async def test_a_refusal_is_told_with_its_reason(triton: ModelServer, metrics: PassedOnMetrics) -> None:
    triton.metrics = 503

    with pytest.raises(ScrapeError, match="/metrics: status 503 instead of 200"):
        await metrics.fetch()
