"""The load client against a real server that misbehaves on demand."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tidegate.bench.client import run_load
from tidegate.bench.results import ErrorKind, RequestResult
from tidegate.bench.workload import Arrival
from tidegate.protocol.errors import ConfigError

DEADLINE_S = 20


def arrival(prompt: str, at_s: float = 0.0) -> Arrival:
    return Arrival(at_s=at_s, prompt=prompt, prompt_tokens=1, max_tokens=3)


def token(text: str) -> bytes:
    chunk = {"system_fingerprint": "sim-1", "choices": [{"index": 0, "delta": {"content": text}}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


class Server:
    """Answers as the prompt says; `seen` are the requests' JSON bodies, `waiting` counts requests told to wait."""

    def __init__(self) -> None:
        self.seen: list[dict[str, object]] = []
        self.waiting = asyncio.Semaphore(0)
        self.release = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen.append(body)
        behaviour = body["messages"][0]["content"]
        if behaviour == "refuse":
            return web.json_response({"error": {"message": "no endpoint"}}, status=503)
        if behaviour == "redirect":
            raise web.HTTPFound("/elsewhere")
        if behaviour == "vanish":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if behaviour == "not a stream":
            return web.json_response({"choices": [{"message": {"content": "whole"}}]})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await self.stream(behaviour, request, response)
        return response

    async def stream(self, behaviour: str, request: web.Request, response: web.StreamResponse) -> None:
        if behaviour == "junk":
            await response.write(b'data: {"content": oops}\n\n')
            return
        if behaviour == "wait":
            self.waiting.release()
            await self.release.wait()
        await response.write(token("a"))
        if behaviour == "hang":
            await self.release.wait()
        elif behaviour == "cut":
            return
        elif behaviour == "reset":
            assert request.transport is not None
            request.transport.abort()
            return
        elif behaviour == "error event":
            await response.write(b'data: {"error": {"message": "engine died"}}\n\n')
        else:
            await response.write(token("b") + token("c"))
        await response.write(b'data: {"choices": [], "usage": {"completion_tokens": 3}}\n\ndata: [DONE]\n\n')


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Server, str]]:
    server = Server()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield server, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        server.release.set()
        await runner.cleanup()


async def one(behaviour: str, timeout_s: float = DEADLINE_S) -> RequestResult:
    async with serving() as (_, url):
        (result,) = await run_load(url, [arrival(behaviour)], model="m", timeout_s=timeout_s)
    return result


async def test_a_complete_answer_is_measured_and_names_its_server() -> None:
    result = await one("answer")

    assert (result.status, result.error, result.detail) == (200, None, "")
    assert (result.output_tokens, result.served_by) == (3, "sim-1")
    assert result.ttft_s is not None
    assert result.tpot_s is not None
    assert 0 < result.ttft_s <= result.e2e_s
    assert 0 <= result.late_s <= result.ttft_s


async def test_the_request_is_an_openai_chat_completion_streamed_with_usage() -> None:
    async with serving() as (server, url):
        await run_load(url + "/", [arrival("answer")], model="llama")

    assert server.seen == [
        {
            "model": "llama",
            "messages": [{"role": "user", "content": "answer"}],
            "max_tokens": 3,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


@pytest.mark.parametrize(
    ("behaviour", "kind", "status", "words"),
    [
        ("refuse", ErrorKind.STATUS, 503, "no endpoint"),
        ("redirect", ErrorKind.STATUS, 302, "status 302"),
        ("vanish", ErrorKind.CONNECT, None, ""),
        ("cut", ErrorKind.TRUNCATED, 200, "without [DONE]"),
        ("reset", ErrorKind.TRUNCATED, 200, ""),
        ("not a stream", ErrorKind.TRUNCATED, 200, "without [DONE]"),
        ("error event", ErrorKind.EVENT, 200, "engine died"),
        ("junk", ErrorKind.MALFORMED, 200, "not a chat completion chunk"),
    ],
)
async def test_each_failure_is_told_by_its_kind(
    behaviour: str, kind: ErrorKind, status: int | None, words: str
) -> None:
    result = await one(behaviour)

    assert (result.error, result.status) == (kind, status)
    assert words in result.detail
    assert result.detail


async def test_a_hung_stream_is_given_up_and_keeps_what_it_showed() -> None:
    result = await one("hang", timeout_s=0.5)

    assert result.error is ErrorKind.TIMEOUT
    assert "0.5 s" in result.detail
    assert result.output_tokens == 1
    assert result.e2e_s >= 0.5


async def test_nobody_listening_is_a_connect_error() -> None:
    async with serving() as (_, url):
        pass

    (result,) = await run_load(url, [arrival("answer")], model="m", timeout_s=DEADLINE_S)

    assert (result.error, result.status) == (ErrorKind.CONNECT, None)


async def test_requests_go_out_on_time_while_all_earlier_ones_still_wait() -> None:
    count = 150  # above aiohttp's usual limit of 100 connections

    async with serving() as (server, url):
        load = asyncio.create_task(
            run_load(url, [arrival("wait", at_s=i / 1000) for i in range(count)], model="m", timeout_s=DEADLINE_S)
        )
        async with asyncio.timeout(DEADLINE_S):
            for _ in range(count):
                await server.waiting.acquire()
        server.release.set()
        results = await load

    assert [result.error for result in results] == [None] * count


async def test_results_keep_the_order_of_the_arrivals_and_each_is_called_out() -> None:
    arrivals = [arrival("answer", at_s=0.05), arrival("refuse", at_s=0.0), arrival("cut", at_s=0.02)]
    called: list[RequestResult] = []

    async with serving() as (_, url):
        results = await run_load(url, arrivals, model="m", on_result=called.append)

    assert [result.error for result in results] == [None, ErrorKind.STATUS, ErrorKind.TRUNCATED]
    assert [result.at_s for result in results] == [0.05, 0.0, 0.02]
    assert sorted(map(id, called)) == sorted(map(id, results))


async def test_a_late_client_admits_it_and_its_lateness_counts_as_latency() -> None:
    stall_s = 0.3

    def stall(_: RequestResult) -> None:
        deadline = loop.time() + stall_s
        while loop.time() < deadline:  # keeps the loop from sending what is due
            pass

    loop = asyncio.get_running_loop()
    async with serving() as (_, url):
        results = await run_load(url, [arrival("refuse"), arrival("answer", at_s=0.1)], model="m", on_result=stall)

    late = results[1].late_s
    assert late > 0.05
    assert results[1].ttft_s is not None
    assert results[1].ttft_s > late


async def test_stopping_the_run_leaves_no_request_behind() -> None:
    async with serving() as (server, url):
        before = asyncio.all_tasks()
        load = asyncio.create_task(run_load(url, [arrival("wait")], model="m"))
        async with asyncio.timeout(DEADLINE_S):
            await server.waiting.acquire()
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
        left = [task for task in asyncio.all_tasks() - before if task.get_name().startswith("load request")]

    assert left == []


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://host", "http://", "http://[::1", "http://host:port", ""])
async def test_a_url_that_is_none_is_refused_before_the_run(url: str) -> None:
    with pytest.raises(ConfigError, match="Write it like"):
        await run_load(url, [arrival("answer")], model="m")
