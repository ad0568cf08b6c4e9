"""The composite metrics inside a real Triton, and real Tritons behind the gateway.

What tensorrtllm_backend PR #725 asked to be tried by hand: curl the metrics before and under load.
"""

import asyncio
import functools
from collections import Counter
from pathlib import Path

import aiohttp

from processes import Gateway, gateway, until
from tritons import Exposition, Triton, tritons

MODEL = {"model": "tensorrt_llm", "version": "1"}
BATCH, BLOCKS, TOKENS_PER_BLOCK = 8, 64, 32  # examples/triton/models/tensorrt_llm/config.pbtxt

FAMILIES = {
    "nv_trt_llm_request_metrics": ("request_type", "active max scheduled context waiting"),
    "nv_trt_llm_runtime_memory_metrics": ("memory_type", "cpu gpu pinned"),
    "nv_trt_llm_kv_cache_block_metrics": ("kv_cache_block_type", "max free used tokens_per reused fraction"),
    "nv_trt_llm_inflight_batcher_metrics": (
        "inflight_batcher_specific_metric",
        "total_context_tokens generation_requests micro_batch_id paused_requests",
    ),
    "nv_trt_llm_general_metrics": ("general_type", "timestamp iteration_counter"),
}


def series(scrape: Exposition, family: str, kind: str) -> float:
    """Return one of the published gauges."""
    label, _ = FAMILIES[family]
    return scrape[family, frozenset({label: kind, **MODEL}.items())]


def requests(scrape: Exposition, kind: str) -> float:
    return series(scrape, "nv_trt_llm_request_metrics", kind)


def blocks(scrape: Exposition, kind: str) -> float:
    return series(scrape, "nv_trt_llm_kv_cache_block_metrics", kind)


def composites_agree(scrape: Exposition) -> bool:
    """Whether both composites follow from the ingredients of the same scrape."""
    waiting = requests(scrape, "active") - requests(scrape, "scheduled")
    return requests(scrape, "waiting") == waiting and blocks(scrape, "fraction") == blocks(scrape, "used") / BLOCKS


async def generate(url: str, *, max_tokens: int, prompt: str = "tide") -> tuple[str, int]:
    """Stream one answer; returns who served it, and how many tokens came."""
    body = {"text_input": prompt, "max_tokens": max_tokens, "stream": True}
    async with aiohttp.request(
        "POST", f"{url}/v2/models/tensorrt_llm/generate_stream", json=body, timeout=aiohttp.ClientTimeout(60)
    ) as answer:
        text = await answer.text()
    assert answer.status == 200, text
    events = [line for line in text.splitlines() if line.startswith("data: ")]
    [served_by] = {line.partition('"served_by":"')[2].partition('"')[0] for line in events}
    return served_by, len(events)


async def test_an_idle_triton_publishes_zeros_under_the_exact_names_and_labels(tmp_path: Path) -> None:
    async with tritons(tmp_path, "a") as [triton]:
        idle = await triton.scrape()
        await generate(triton.url, max_tokens=7, prompt="tide" * 12)
        used = await triton.scrape()

    published = {key for key in idle if key[0].startswith("nv_trt_llm_")}
    assert published == {
        (family, frozenset({label: kind, **MODEL}.items()))
        for family, (label, kinds) in FAMILIES.items()
        for kind in kinds.split()
    }
    assert requests(idle, "waiting") == blocks(idle, "fraction") == 0
    assert requests(idle, "max") == BATCH
    assert (blocks(idle, "max"), blocks(idle, "tokens_per")) == (BLOCKS, TOKENS_PER_BLOCK)
    lengths = {
        "nv_llm_input_token_len": ("total_input_tokens", 12),
        "nv_llm_output_token_len": ("total_output_tokens", 7),
    }
    for family, (kind, tokens) in lengths.items():
        labels = {"response_metric_type": kind, **MODEL}
        assert used[f"{family}_sum", frozenset(labels.items())] == tokens
        assert used[f"{family}_count", frozenset(labels.items())] == 1
        bounds = [dict(key[1])["le"] for key in used if key[0] == f"{family}_bucket"]
        assert sorted(bounds, key=float) == ["10", "50", "100", "500", "1000", "+Inf"]


async def test_the_composites_rise_under_load_through_the_gateway_and_fall_back(tmp_path: Path) -> None:
    async with tritons(tmp_path, "a", "b") as (a, b), gateway(a.argument, b.argument) as up:
        await up.ready(a.endpoint, b.endpoint)
        # 400 tokens of prompt and answer are promised 13 blocks, so that of 64 a Triton runs 4 requests at a time.
        prompts = [f"{number:04}" + "tide" * 279 for number in range(2 * BATCH)]
        answers = [asyncio.create_task(generate(up.url, max_tokens=120, prompt=prompt)) for prompt in prompts]

        async def loaded(triton: Triton) -> bool:
            scrape = await triton.scrape()
            return requests(scrape, "active") == BATCH and requests(scrape, "scheduled") > 0

        for triton in (a, b):
            await until(functools.partial(loaded, triton))
        scrapes = [await triton.scrape() for triton in [a, b] * 10]
        assert sum(map(composites_agree, scrapes)) >= 18  # a scrape may fall between two series
        assert max(requests(scrape, "waiting") for scrape in scrapes) == BATCH - BLOCKS // 13
        assert 0.05 < max(blocks(scrape, "fraction") for scrape in scrapes) <= 1

        served = Counter(served_by for served_by, _ in await asyncio.gather(*answers))
        assert served == {"a": BATCH, "b": BATCH}  # a burst over two idle servers is halved
        assert {tokens for _, tokens in await asyncio.gather(*answers)} == {120}
        for triton in (a, b):
            await up.shows(triton.endpoint, queued_requests=0, running_requests=0, kv_utilization=0.0, in_flight=0)
            drained = await triton.scrape()
            assert requests(drained, "waiting") == blocks(drained, "fraction") == 0
            assert series(drained, "nv_trt_llm_general_metrics", "iteration_counter") > 240
        assert await outcomes(up) == {"answered": 2 * BATCH}


async def test_new_requests_avoid_a_triton_that_is_loaded_behind_the_gateways_back(tmp_path: Path) -> None:
    async with tritons(tmp_path, "a", "b") as (a, b), gateway(a.argument, b.argument) as up:
        await up.ready(a.endpoint, b.endpoint)
        for busy, free in ((a, b), (b, a)):
            direct = [asyncio.create_task(generate(busy.url, max_tokens=200)) for _ in range(3 * BATCH)]
            await up.shows(busy.endpoint, queued_requests=2 * BATCH)

            answers = await asyncio.gather(*(generate(up.url, max_tokens=3) for _ in range(10)))

            assert answers == [(free.name, 3)] * 10
            for answer in direct:
                answer.cancel()
            await asyncio.gather(*direct, return_exceptions=True)
            # Requests whose clients have left are dropped from the batch manager, too.
            await up.shows(busy.endpoint, queued_requests=0, running_requests=0)


async def outcomes(up: Gateway) -> dict[str, int]:
    """Return how all requests ended."""
    counts: dict[str, int] = (await up.drained())["outcomes"]
    return counts
