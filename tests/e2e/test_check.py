"""`tidegate check` as users start it, against simulated servers."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

import pytest

from clients import load
from processes import Tidegate, environment, free_port, sim, tidegate, until
from servers import model_server
from tritons import tritons

CONFORMANT = ("vllm", "sglang", "trtllm-serve", "triton-tensorrt-llm")
LACKING = {"llamacpp": "kv_utilization", "tgi": "kv_utilization"}


async def check(*arguments: str) -> tuple[int, str]:
    """Run it until it ends; returns its exit status and what it said."""
    async with tidegate("check", *arguments) as process:
        status = await process.end()
    return status, "\n".join(process.lines)


async def check_json(*arguments: str) -> tuple[int, Any]:
    status, text = await check(*arguments, "--json")
    return status, json.loads(text)


@pytest.mark.parametrize("engine", CONFORMANT)
async def test_a_simulated_server_is_conformant_idle_and_under_load(engine: str) -> None:
    async with sim("--engine", engine, "--iteration-ms", "5", "--max-batch-size", "4") as (_, url):
        idle_status, idle = await check_json(url)
        async with load(url, clients=12, max_tokens=30) as running:
            await running.goes_on(12)
            busy_status, busy = await check_json(url)

    assert (idle_status, idle["engine"], idle["conformant"]) == (0, engine, True)
    assert idle["signals"] | {"lora": None} == idle["signals"]
    assert idle["signals"]["queued_requests"] == idle["signals"]["running_requests"] == 0
    assert idle["signals"]["kv_utilization"] == 0.0
    assert set(idle["sources"]) >= {"queued_requests", "running_requests", "kv_utilization"}
    assert (busy_status, busy["conformant"]) == (0, True)
    assert busy["signals"]["running_requests"] > 0


@pytest.mark.parametrize(("engine", "missing"), LACKING.items())
async def test_the_signal_that_an_engine_lacks_is_named(engine: str, missing: str) -> None:
    async with sim("--engine", engine) as (_, url):
        status, document = await check_json(url)

    assert (status, document["conformant"]) == (1, False)
    [finding] = [finding for finding in document["findings"] if finding["level"] == "error"]
    assert finding["rule"] == "signal-missing"
    assert finding["message"].startswith(f"{missing}: ")
    assert document["signals"][missing] is None


async def test_two_servers_make_two_tables_and_a_list_in_json() -> None:
    async with sim("--engine", "vllm") as (_, vllm), sim("--engine", "tgi") as (_, tgi):
        status, text = await check(vllm, tgi)
        json_status, documents = await check_json(vllm, tgi)

    assert (status, json_status) == (1, 1)
    assert f"{vllm}  vllm  conformant" in text
    assert f"{tgi}  tgi  not conformant" in text
    assert "\x1b[" not in text
    assert [document["url"] for document in documents] == [vllm, tgi]


async def test_the_api_of_a_simulated_server_answers_and_its_answers_have_no_load_headers() -> None:
    async with sim() as (_, url):
        status, document = await check_json(url, "--api", "--orca")

    rules = [finding["rule"] for finding in document["findings"]]
    assert status == 0
    assert (rules.count("api-answers"), rules.count("orca-missing")) == (2, 2)


async def test_watching_a_server_at_work_shows_what_moves() -> None:
    async with sim("--iteration-ms", "5", "--max-batch-size", "4") as (_, url), load(url, clients=9) as running:
        await running.goes_on(9)
        status, document = await check_json(url, "--watch", "1500ms")

    assert status == 0
    assert document["watch"]["completions"]["changes"] > 0
    assert not [finding for finding in document["findings"] if finding["rule"].startswith("values-")]


async def test_a_real_triton_that_publishes_the_composites_is_conformant(tmp_path: Path) -> None:
    async with tritons(tmp_path, "a") as [triton]:
        status, document = await check_json(triton.argument)

    assert (status, document["engine"], document["conformant"]) == (0, "triton-tensorrt-llm", True)
    assert (document["signals"]["queued_requests"], document["signals"]["kv_utilization"]) == (0, 0.0)
    assert not [finding for finding in document["findings"] if finding["level"] != "info"]


async def test_a_hung_server_is_found_frozen() -> None:
    async with model_server("a") as server:

        async def finish() -> None:
            for finished in range(10_000):
                text = (
                    '# TYPE nv_trt_llm_request_metrics gauge\nnv_trt_llm_request_metrics{request_type="waiting"} 4\n'
                    'nv_trt_llm_request_metrics{request_type="scheduled"} 2\n'
                    "# TYPE nv_trt_llm_kv_cache_block_metrics gauge\n"
                    'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction"} 0.5\n'
                    f"# TYPE nv_inference_request_success counter\nnv_inference_request_success {finished}\n"
                )
                server.metrics = text.encode()
                await asyncio.sleep(0.02)

        finishing = asyncio.create_task(finish())
        try:
            status, text = await check(server.url, "--watch", "1s")
        finally:
            finishing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await finishing

    assert status == 0
    assert "warning  values-frozen" in text


@pytest.mark.parametrize("body", [b"<html></html>\n", b"\xff" * 1000, b"", 503], ids=["html", "binary", "empty", "503"])
async def test_what_is_no_exposition_is_told_without_a_traceback(body: bytes | int) -> None:
    async with model_server("a") as server:
        server.metrics = body
        status, text = await check(f"{server.url}/metrics")

    assert status == 2
    assert "could not be checked" in text
    assert "not-an-exposition" in text
    assert "Traceback" not in text


async def test_a_server_that_is_down_is_exit_status_2_and_valid_json() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    status, document = await check_json(url)

    assert status == 2
    assert (document["url"], document["engine"], document["conformant"]) == (url, None, False)
    assert [finding["rule"] for finding in document["findings"]] == ["unreachable"]


async def test_a_server_that_never_answers_is_given_up() -> None:
    async with model_server("a") as server:
        server.metrics_release.clear()
        status, document = await check_json(f"{server.url}/metrics", "--timeout", "300ms")

    assert status == 2
    assert [finding["rule"] for finding in document["findings"]] == ["timeout"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gpu-1:8000"], "bad URL 'gpu-1:8000'"),
        (["https://gpu-1"], "https is not supported yet"),
        (["http://gpu-1", "--engine", "vlm"], "Did you mean vllm"),
        (["http://gpu-1", "--watch", "soon"], "'soon' is not a time such as 10s, 500ms or 2m"),
        (["http://gpu-1", "--watch", "0s"], "'0s' is not a time"),
        (["http://gpu-1", "--watch", "61m"], "--watch: 3660 s is too long. Watch at most 60m."),
        (["--json"], "no model server is given"),
    ],
    ids=" ".join,
)
async def test_a_wrong_argument_is_one_line_and_exit_status_2(arguments: list[str], says: str) -> None:
    status, text = await check(*arguments)

    assert status == 2
    [line] = text.splitlines()
    assert says in line


async def test_output_that_cannot_be_written_is_one_line_and_exit_status_2() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    async with model_server("a") as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "tidegate", "check", server.url), stdout=full, stderr=PIPE
        )
        os.close(full)
        _, said = await process.communicate()

    assert said.decode().splitlines() == [
        "tidegate: cannot write the report: No space left on device. Give the output another place."
    ]
    assert process.returncode == 2


async def test_what_the_encoding_of_the_terminal_lacks_is_shown_as_escapes() -> None:
    async with model_server("a") as server:
        server.metrics = 'tgi_queue_size{model_name="\u00fc"} 1\ntgi_queue_size{model_name="v"} 1\n'.encode()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "tidegate", "check", f"{server.url}/metrics"),
            stdout=PIPE,
            stderr=STDOUT,
            env={**environment(), "PYTHONIOENCODING": "ascii"},
        )
        said, _ = await process.communicate()

    assert r"2 models (\xfc, v)" in said.decode("ascii")
    assert process.returncode == 1


async def test_a_signal_ends_a_watch_without_a_traceback() -> None:
    async def is_scraped() -> bool:
        return server.scraped > 3

    async with model_server("a") as server, tidegate("check", server.url, "--watch", "10m") as process:
        await until(is_scraped)
        process.process.send_signal(signal.SIGINT)
        status = await Tidegate.end(process)

    assert status == 130
    assert process.lines == []
