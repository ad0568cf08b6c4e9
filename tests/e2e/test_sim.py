"""`tidegate sim` as users start it."""

import contextlib
import json
import re
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import openai
import pytest

from processes import Tidegate, tidegate, until
from tidegate.protocol.engines import ENGINES
from tidegate.protocol.load import parse_signals

MODEL = "tensorrt_llm"
LINE = r"^tidegate sim (\S+): serving (\S+) on (http://127\.0\.0\.1:\d+) \(engine (\S+)\)$"


@contextlib.asynccontextmanager
async def sim(*options: str) -> AsyncIterator[tuple[Tidegate, str]]:
    """Run one on a free port; yields it with its URL."""
    async with tidegate("sim", "--port", "0", *options) as process:
        yield process, (await process.said(LINE))[3]


@contextlib.asynccontextmanager
async def held_stream(url: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """Hold an answer open that has begun and will not end by itself."""
    body = json.dumps({"model": MODEL, "prompt": "tide", "max_tokens": 100_000, "stream": True})
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/completions", data=body) as answer:
        yield answer


async def test_it_says_in_one_line_what_it_serves_and_where() -> None:
    async with sim("--name", "blue", "--model", "tiny", "--engine", "vllm") as (process, url):
        assert re.match(LINE, process.lines[0])
        assert process.lines == [f"tidegate sim blue: serving tiny on {url} (engine vllm)"]
        process.process.send_signal(signal.SIGTERM)
        assert await process.end() == 0
        assert len(process.lines) == 1


async def test_the_official_client_streams_from_it() -> None:
    async with sim() as (_, url), openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "hello"}], max_tokens=8, stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert len("".join(chunk.choices[0].delta.content or "" for chunk in chunks).split()) == 8
    assert {chunk.system_fingerprint for chunk in chunks} == {url.removeprefix("http://")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_soon_and_well_even_with_open_streams(number: signal.Signals) -> None:
    async with sim() as (process, url), held_stream(url) as answer:
        process.process.send_signal(number)
        assert await process.end(within_s=10) == 0
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
    assert len(process.lines) == 1


async def test_a_signal_lets_a_short_answer_finish() -> None:
    async with sim("--iteration-ms", "100") as (process, url), aiohttp.ClientSession() as session:
        body = json.dumps({"model": MODEL, "prompt": "tide", "max_tokens": 3, "stream": True})
        async with session.post(f"{url}/v1/completions", data=body) as answer:
            process.process.send_signal(signal.SIGTERM)
            assert (await answer.text()).endswith("data: [DONE]\n\n")


async def test_a_killed_server_cuts_its_streams() -> None:
    async with sim() as (process, url), held_stream(url) as answer:
        process.process.kill()
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
        await process.end()


async def test_a_client_that_leaves_gives_its_blocks_back() -> None:
    async def used() -> float | None:
        async with aiohttp.request("GET", f"{url}/metrics") as answer:
            engine = ENGINES["triton-tensorrt-llm"]
            return parse_signals(await answer.read(), engine, observed_at=0.0).kv_utilization

    async def holds_blocks() -> bool:
        return await used() != 0

    async def holds_none() -> bool:
        return await used() == 0

    async with sim() as (_, url):
        async with held_stream(url):
            await until(holds_blocks)
        await until(holds_none)


async def test_a_port_in_use_is_one_line_and_exit_status_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with tidegate("sim", "--port", str(port)) as process:
            assert await process.end() == 2
    [line] = process.lines
    assert f"port {port} of 127.0.0.1 is in use" in line
    assert "--port" in line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--engine", "vlm"], "Did you mean vllm"),
        (["--engine", "triton"], "publishes nothing of an LLM"),
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
    ],
)
async def test_a_wrong_option_is_one_line_and_exit_status_2(options: list[str], says: str) -> None:
    async with tidegate("sim", "--port", "0", *options) as process:
        assert await process.end() == 2
    [line] = process.lines
    assert says in line


async def test_it_is_small_enough_for_a_fleet() -> None:
    async with sim() as (process, _):
        status = Path(f"/proc/{process.process.pid}/status").read_text()
    resident_kb = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])  # type: ignore[index]
    assert resident_kb < 60_000
