"""tidegate.publish.triton inside a real Triton, in a model of the shape of TensorRT-LLM's backend on the LLM API.

The LLM is a stand-in (tests/triton_models/llm_api) that says what a file beside the model says.
"""

import contextlib
import json
import re
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from processes import until
from tidegate.protocol.engines import engine_named
from tidegate.protocol.load import parse_signals
from tidegate.protocol.signals import LoadSignals
from tritons import Exposition, Labels, Triton, tritons

TESTS = Path(__file__).resolve().parents[1]
RECORDED = TESTS / "publish" / "recorded"
MODEL = {"model": "llm_api", "version": "1"}
REQUESTS = ("nv_trt_llm_request_metrics", "request_type")
BLOCKS = ("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type")
BATCH = ("nv_trt_llm_inflight_batcher_metrics", "inflight_batcher_specific_metric")
DISAGGREGATED = ("nv_trt_llm_disaggregated_serving_metrics", "disaggregated_serving_type")
FAMILIES = {
    REQUESTS: "active max scheduled context waiting",
    ("nv_trt_llm_runtime_memory_metrics", "memory_type"): "cpu gpu pinned",
    BLOCKS: "max free used tokens_per reused fraction",
    BATCH: "total_context_tokens generation_requests micro_batch_id paused_requests",
    ("nv_trt_llm_general_metrics", "general_type"): "timestamp iteration_counter",
}


class Model:
    """The model in a running Triton, and what its LLMs are made to say."""

    def __init__(self, triton: Triton, replay: Path) -> None:
        self.triton = triton
        self._replay = replay

    def say(self, *, instance: str = "0_0", **line: Any) -> None:
        """Let the LLM of an instance say something at its next look."""
        append(self._replay / f"llm_api_{instance}", line)

    async def values(self, family: tuple[str, str], instance: str | None = None) -> dict[str, float]:
        """Return the series of a family by the value of its label."""
        return values(await self.triton.scrape(), family, instance)

    async def shows(self, family: tuple[str, str], instance: str | None = None, **expected: float) -> None:
        """Wait until a family has these series, among others."""

        async def is_shown() -> bool:
            return expected.items() <= (await self.values(family, instance)).items()

        await until(is_shown)

    async def signals(self) -> LoadSignals:
        """Return what tidegate's scanner makes of the metrics."""
        async with aiohttp.request("GET", self.triton.metrics_url) as answer:
            return parse_signals(await answer.read(), engine_named("triton-tensorrt-llm"), observed_at=0)

    async def infer(self, *, input_tokens: int, output_tokens: int) -> int:
        """Have one request answered; returns the status."""
        tokens = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        async with aiohttp.request("POST", f"{self.triton.url}/v2/models/llm_api/generate", json=tokens) as answer:
            await answer.read()
            return answer.status

    def said(self) -> list[str]:
        """Return the log lines of the reporters, and of the models as they end."""
        return re.findall(r'"(tidegate: .*|threads left: .*)"$', self.triton.log.read_text(), re.MULTILINE)


@contextlib.asynccontextmanager
async def model(
    directory: Path, *, instances: int = 1, enabled: bool = True, options: Sequence[str] = ()
) -> AsyncIterator[Model]:
    """Run the model in a Triton until the end of the block."""
    home = directory / "models" / "llm_api"
    shutil.copytree(TESTS / "triton_models" / "llm_api", home)
    config = (home / "config.pbtxt").read_text()
    assert "count: 1 " in config
    (home / "config.pbtxt").write_text(config.replace("count: 1 ", f"count: {instances} "))
    (home / "replay").mkdir()
    for number in range(instances):
        append(home / "replay" / f"llm_api_0_{number}", {"args": {"enable_iter_perf_stats": enabled}})
    options = ("--models", str(directory / "models"), *options)
    async with tritons(directory, "a", options=options) as [triton]:
        yield Model(triton, home / "replay")


def append(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def recorded(name: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())["row"]
    return row


def iteration(active: int, scheduled: int, queued: int = 0, ended: int = 0, used: int = 20) -> dict[str, Any]:
    """One iteration of an LLM with 80 blocks."""
    return {
        "numActiveRequests": active,
        "numQueuedRequests": queued,
        "numCompletedRequests": ended,
        "kvCacheStats": {"maxNumBlocks": 80, "usedNumBlocks": used, "tokensPerBlock": 32},
        "inflightBatchingStats": {"numScheduledRequests": scheduled, "numContextRequests": 0},
        "staticBatchingStats": {"numScheduledRequests": 0, "emptyGenSlots": 0},
    }


def labelled(**labels: str) -> Labels:
    return frozenset({**MODEL, **labels}.items())


def values(scrape: Exposition, family: tuple[str, str], instance: str | None = None) -> dict[str, float]:
    """Return what a family says, by the value of its label; its series have exactly the labels they should have."""
    name, label = family
    others = MODEL if instance is None else {**MODEL, "instance": instance}
    of_family = {labels: value for (key, labels), value in scrape.items() if key == name}
    kinds = {dict(labels)[label] for labels in of_family}
    wanted = {kind: frozenset({label: kind, **others}.items()) for kind in kinds}
    return {kind: of_family[labels] for kind, labels in wanted.items() if labels in of_family}


async def test_a_model_just_loaded_shows_zeros_and_then_all_that_a_real_server_said(tmp_path: Path) -> None:
    async with model(tmp_path) as llm:
        loaded = await llm.triton.scrape()
        llm.say(rows=[iteration(9, 9), recorded("tensorrt_6364")])
        await llm.shows(REQUESTS, active=1)
        scrape = await llm.triton.scrape()

    assert values(loaded, REQUESTS) == {"active": 0, "scheduled": 0, "context": 0, "waiting": 0}
    assert values(loaded, BLOCKS) == {"used": 0, "fraction": 0}
    published = {key for key in scrape if key[0].startswith("nv_trt_llm_")}
    assert published == {
        (family, labelled(**{label: kind})) for (family, label), kinds in FAMILIES.items() for kind in kinds.split()
    }
    assert values(scrape, REQUESTS) == {"active": 1, "max": 2048, "scheduled": 1, "context": 0, "waiting": 0}
    assert values(scrape, BLOCKS)["fraction"] == 3 / 22955
    assert values(scrape, BATCH)["generation_requests"] == 1


async def test_the_load_rises_and_falls_to_zero_when_the_llm_has_nothing_more_to_say(tmp_path: Path) -> None:
    async with model(tmp_path) as llm:
        llm.say(rows=[iteration(9, 4, queued=7), recorded("pytorch_6364")])  # the newest leaves out most
        await llm.shows(BATCH, generation_requests=1)
        llm.say(rows=[iteration(9, 4, queued=7, used=60)])
        await llm.shows(REQUESTS, active=9, scheduled=4, waiting=12)
        await llm.shows(BLOCKS, used=60, fraction=0.75)
        assert await llm.signals() == LoadSignals(
            queued_requests=12, running_requests=4, kv_utilization=0.75, block_size=32, num_blocks=80, observed_at=0
        )

        llm.say(rows=[iteration(2, 2, ended=1), iteration(2, 1, ended=1, used=5)])  # as the overlap scheduler ends

        await llm.shows(REQUESTS, active=0, scheduled=0, waiting=0)
        await llm.shows(BLOCKS, used=5, fraction=5 / 80)
    assert llm.said() == ["threads left: []"]


async def test_two_instances_are_told_apart_and_the_scanner_puts_them_together(tmp_path: Path) -> None:
    async with model(tmp_path, instances=2) as llm:
        llm.say(instance="0_0", rows=[iteration(5, 4, queued=1, used=8)])
        llm.say(instance="0_1", rows=[iteration(3, 3, used=60)])
        await llm.shows(REQUESTS, "0_0", active=5, waiting=2)
        await llm.shows(REQUESTS, "0_1", active=3, waiting=0)
        await llm.shows(BLOCKS, "0_1", fraction=0.75)

        assert await llm.signals() == LoadSignals(
            queued_requests=2, running_requests=7, kv_utilization=0.75, block_size=32, num_blocks=160, observed_at=0
        )
        assert await llm.infer(input_tokens=1, output_tokens=2) == 200
        scrape = await llm.triton.scrape()
    lengths = [dict(labels)["instance"] for name, labels in scrape if name == "nv_llm_input_token_len_count"]
    assert lengths in (["0_0"], ["0_1"])


async def test_requests_and_transfers_that_were_observed_are_counted(tmp_path: Path) -> None:
    transfer = {"stage": "GENERATION_COMPLETE", "disServingStats": {"kvCacheTransferMS": 7.5, "kvCacheSize": 1}}
    async with model(tmp_path) as llm:
        llm.say(rows=[iteration(1, 1)])
        await llm.shows(REQUESTS, active=1)
        assert await llm.values(DISAGGREGATED) == {}
        assert await llm.infer(input_tokens=120, output_tokens=7) == 200
        assert await llm.infer(input_tokens=30, output_tokens=3000) == 200
        llm.say(rows=[iteration(3, 3) | {"requestStats": [transfer]}, iteration(2, 2) | {"requestStats": [transfer]}])
        await llm.shows(DISAGGREGATED, request_count=2, kv_cache_transfer_ms=15)
        scrape = await llm.triton.scrape()

    for family, kind, tokens in (
        ("nv_llm_input_token_len", "total_input_tokens", 150),
        ("nv_llm_output_token_len", "total_output_tokens", 3007),
    ):
        labels = labelled(response_metric_type=kind)
        assert (scrape[f"{family}_sum", labels], scrape[f"{family}_count", labels]) == (tokens, 2)


async def test_an_llm_that_fails_is_unknown_not_idle_and_comes_back(tmp_path: Path) -> None:
    async with model(tmp_path) as llm:
        llm.say(rows=[iteration(5, 4)])
        await llm.shows(REQUESTS, waiting=1)

        llm.say(raises="the executor died")

        async def withdrawn() -> bool:
            return not any(name.startswith("nv_trt_llm_") for name, _ in await llm.triton.scrape())

        await until(withdrawn)
        assert await llm.infer(input_tokens=1, output_tokens=2) == 200
        llm.say(rows=[iteration(5, 3)])
        await llm.shows(REQUESTS, waiting=2)

    assert llm.said() == [
        "tidegate: llm_api_0_0: the load cannot be published: RuntimeError: the executor died",
        "tidegate: llm_api_0_0: the load is published again",
        "threads left: []",
    ]
    assert "Traceback" not in llm.triton.log.read_text()


async def test_statistics_that_are_switched_off_are_named_and_the_model_serves_on(tmp_path: Path) -> None:
    async with model(tmp_path, enabled=False) as llm:
        assert await llm.infer(input_tokens=1, output_tokens=2) == 200
        scrape = await llm.triton.scrape()

    assert not any(name.startswith("nv_trt_llm_") for name, _ in scrape)
    problem = "no load is published: the LLM keeps no iteration statistics"
    assert llm.said() == [
        f"tidegate: llm_api_0_0: {problem}. Set enable_iter_perf_stats: true in model.yaml.",
        "threads left: []",
    ]


async def test_an_llm_that_hangs_does_not_keep_triton_from_stopping(tmp_path: Path) -> None:
    async with model(tmp_path) as llm:
        llm.say(hangs=3600)
        llm.say(rows=[iteration(5, 4)])
        assert await llm.infer(input_tokens=1, output_tokens=2) == 200
    assert "the LLM has not answered for 2 s" in llm.said()[0]
