"""`tidegate frontend` when Triton is away, dies or loses a model, and behind `tidegate up`."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import openai
from openai.types.chat import ChatCompletionUserMessageParam

from processes import gateway, until
from tritons import Ports, Triton, free_ports, frontend, repository, triton_at, tritons

MODEL = "tensorrt_llm"
MESSAGES = [ChatCompletionUserMessageParam(role="user", content="When is high tide?")]


@contextlib.asynccontextmanager
async def client_of(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """Return a client that does not try again by itself."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def status(url: str) -> int:
    async with aiohttp.request("GET", url) as answer:
        return answer.status


async def becomes(url: str, expected: int) -> None:
    """Wait until a GET has that status."""

    async def has_become() -> bool:
        return await status(url) == expected

    await until(has_become)


async def complete(url: str, *, model: str = MODEL, max_tokens: int = 3) -> tuple[int, str]:
    """Return status and body of a completion."""
    body = {"model": model, "prompt": "tide", "max_tokens": max_tokens}
    async with aiohttp.request("POST", f"{url}/v1/completions", json=body) as answer:
        return answer.status, await answer.text()


def message_of(body: str) -> str:
    error = json.loads(body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return str(error["message"])


async def test_it_waits_for_a_triton_that_comes_later_and_finds_it_again(tmp_path: Path) -> None:
    ports: Ports = free_ports()
    async with frontend(ports) as (process, url):
        assert await status(f"{url}/health/ready") == 503
        failed, body = await complete(url)
        assert (failed, message_of(body)) == (503, "This server is not ready, and does not know its models")
        async with aiohttp.request("GET", f"{url}/metrics") as answer:
            assert (answer.status, "connection refused" in await answer.text()) == (502, True)
        async with aiohttp.request("GET", f"{url}/v1/models") as answer:
            assert (await answer.json())["data"] == []

        for _ in range(2):
            async with triton_at(tmp_path, ports) as triton:
                await becomes(f"{url}/health/ready", 200)
                assert (await complete(url))[0] == 200
                assert await status(f"{url}/metrics") == 200
                triton.kill()
                await becomes(f"{url}/health/ready", 503)
                failed, body = await complete(url)
                assert (failed, message_of(body)) == (503, "Triton cannot be reached, or takes no requests now")

        await process.said("Triton cannot be reached")
        assert not [line for line in process.lines if "Traceback" in line or "ERROR" in line]


async def test_a_triton_that_dies_amid_streams_ends_them_with_an_error(tmp_path: Path) -> None:
    async with tritons(tmp_path, "a") as [triton], frontend(triton) as (process, url), client_of(url) as client:
        await becomes(f"{url}/health/ready", 200)
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=1500, stream=True)
        whole = asyncio.create_task(complete(url, max_tokens=1500))
        chunks = aiter(stream)
        await anext(chunks)

        triton.kill()

        assert str(await last_error(chunks)) == "Triton cannot be reached, or takes no requests now"
        failed, body = await whole
        assert (failed, message_of(body)) == (503, "Triton cannot be reached, or takes no requests now")
        assert process.process.returncode is None


async def last_error(chunks: AsyncIterator[object]) -> openai.APIError:
    """Read to the end, which must be an error."""
    try:
        async for _ in chunks:
            pass
    except openai.APIError as error:
        return error
    raise AssertionError("the stream ended as if it were whole")


async def test_a_stop_of_the_frontend_ends_streams_with_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    async with tritons(tmp_path, "a") as [triton], frontend(triton) as (process, url), client_of(url) as client:
        await becomes(f"{url}/health/ready", 200)
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=1500, stream=True)
        chunks = aiter(stream)
        await anext(chunks)

        process.process.terminate()

        assert str(await last_error(chunks)) == "The server is stopping"
        assert await process.end(within_s=5) == 0
        assert not [line for line in process.lines if "Traceback" in line or "ERROR" in line]
        await until(lambda: is_idle(triton), within_s=5)


async def is_idle(triton: Triton) -> bool:
    labels = {"model": MODEL, "version": "1", "request_type": "active"}
    return (await triton.scrape())["nv_trt_llm_request_metrics", frozenset(labels.items())] == 0


async def test_models_come_and_go_as_triton_loads_and_unloads_them(tmp_path: Path) -> None:
    models = repository(tmp_path, MODEL, "llmapi")
    options = ("--models", str(models), "--", "--model-control-mode=explicit", f"--load-model={MODEL}")
    async with tritons(tmp_path, "a", options=options) as [triton], frontend(triton) as (_, url):

        async def listed() -> list[str]:
            async with aiohttp.request("GET", f"{url}/v1/models") as answer:
                return [model["id"] for model in (await answer.json())["data"]]

        async def lists(*names: str) -> None:
            async def are_listed() -> bool:
                return await listed() == list(names)

            await until(are_listed)

        await lists(MODEL)
        await control(triton, "llmapi", "load")
        await lists("llmapi", MODEL)
        assert (await complete(url, model="llmapi"))[0] == 200

        await control(triton, "llmapi", "unload")
        # Before and after the frontend has noticed.
        assert (await complete(url, model="llmapi"))[0] in (404, 503)
        await lists(MODEL)
        failed, body = await complete(url, model="llmapi")
        assert (failed, json.loads(body)["error"]["code"]) == (404, "model_not_found")

        await control(triton, MODEL, "unload")
        await lists()
        assert await status(f"{url}/health/ready") == 503


async def control(triton: Triton, model: str, action: str) -> None:
    """Load or unload a model."""
    async with aiohttp.request("POST", f"{triton.url}/v2/repository/models/{model}/{action}") as answer:
        assert answer.status == 200, await answer.text()


async def test_up_streams_chats_over_two_frontends_over_two_tritons(tmp_path: Path) -> None:
    async with (
        tritons(tmp_path, "a", "b") as (a, b),
        frontend(a) as (_, url_a),
        frontend(b) as (_, url_b),
        gateway(url_a, url_b) as up,
        client_of(up.url) as client,
    ):
        await up.ready()

        async def chat() -> tuple[str, int]:
            stream = await client.chat.completions.create(
                model=MODEL, messages=MESSAGES, max_tokens=40, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
            text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
            assert chunks[-1].usage is not None
            assert chunks[-1].usage.completion_tokens == 40
            return str(chunks[-1].system_fingerprint), len(text.split())

        answers = await asyncio.gather(*(chat() for _ in range(16)))

        assert {words for _, words in answers} == {40}
        assert Counter(server for server, _ in answers) == {url.removeprefix("http://"): 8 for url in (url_a, url_b)}
        assert (await up.drained())["outcomes"] == {"answered": 16}
        for endpoint in await up.states():
            await up.shows(endpoint, queued_requests=0, running_requests=0, kv_utilization=0.0, in_flight=0)
