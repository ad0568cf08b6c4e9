"""The load client on completions and on Triton's generate_stream, against a simulated server; its bound; its models."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from frontends import MODEL, simulated_server
from servers import listening_port
from tidegate.bench.client import Errand, OpenLoop
from tidegate.bench.models import first_model
from tidegate.bench.results import ErrorKind, RequestResult
from tidegate.bench.target import Api, Target, parse_target
from tidegate.bench.workload import Arrival
from tidegate.protocol.errors import ConfigError

PROMPT = "tide gate "  # 3 tokens of 4 bytes
DEADLINE_S = 20


def arrivals(count: int, max_tokens: int = 5) -> list[Arrival]:
    return [Arrival(at_s=0.0, prompt=PROMPT, prompt_tokens=3, max_tokens=max_tokens) for _ in range(count)]


async def run(load: OpenLoop) -> list[RequestResult]:
    async with asyncio.timeout(DEADLINE_S):
        await load.run()
    return [load.results[i] for i in sorted(load.results)]


@asynccontextmanager
async def answering(body: bytes, *, status: int = 200) -> AsyncIterator[str]:
    """Serve this to every request; yields the root."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status, content_type="text/event-stream")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{listening_port(site)}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("api", list(Api))
async def test_every_api_is_measured_on_a_simulated_server(api: Api) -> None:
    async with simulated_server() as url:
        root = f"{url}/v2/models/{MODEL}/generate_stream" if api is Api.GENERATE_STREAM else url
        target = parse_target(root, model=MODEL, api=api)
        load = OpenLoop([Errand(target, arrival) for arrival in arrivals(2)], timeout_s=DEADLINE_S)
        results = await run(load)

    assert target.api is api
    assert load.streamed(target) == 10
    for result in results:
        assert (result.error, result.detail, result.output_tokens, result.served_by) == (None, "", 5, "sim-1")
        assert result.ttft_s is not None
        assert result.tpot_s is not None
        assert 0 < result.ttft_s < result.ttft_s + 4 * result.tpot_s <= result.e2e_s
        # Triton does not count tokens; the others do.
        assert result.counted is (api is not Api.GENERATE_STREAM)
        assert result.prompt_tokens is None or result.prompt_tokens >= 3


async def test_what_is_streamed_is_known_for_each_target() -> None:
    async with simulated_server() as url:
        chat, completions = (parse_target(url, model=MODEL, api=api) for api in (Api.CHAT, Api.COMPLETION))
        load = OpenLoop(
            [*(Errand(chat, arrival) for arrival in arrivals(3)), Errand(completions, arrivals(1, 7)[0])],
            timeout_s=DEADLINE_S,
        )
        await run(load)

    assert (load.streamed(chat), load.streamed(completions)) == (15, 7)


OUTPUT = b'data: {"model_name":"m","text_output":"tide"}\n\n'


@pytest.mark.parametrize(
    ("answer", "error", "detail", "tokens"),
    [
        (OUTPUT * 2, None, "", 2),
        (OUTPUT + b'data: {"error":"engine died"}\n\n', ErrorKind.EVENT, '"engine died"', 1),
        (b'data: {"text_output": oops}\n\n', ErrorKind.MALFORMED, "not an output of generate_stream", 0),
    ],
)
async def test_a_stream_of_triton_ends_with_its_body_and_its_errors_are_seen(
    answer: bytes, error: ErrorKind | None, detail: str, tokens: int
) -> None:
    async with answering(answer) as root:
        target = parse_target(f"{root}/v2/models/m/generate_stream", model="")
        [result] = await run(OpenLoop([Errand(target, arrivals(1)[0])], timeout_s=DEADLINE_S))

    assert (result.error, result.output_tokens) == (error, tokens)
    assert detail in result.detail


async def test_a_request_over_the_bound_is_not_sent_and_does_not_wait() -> None:
    async with simulated_server() as url:
        target = parse_target(url, model=MODEL)
        load = OpenLoop([Errand(target, arrival) for arrival in arrivals(5)], timeout_s=DEADLINE_S, max_open=2)
        results = await run(load)

    assert [result.error for result in results] == [None, None, *[ErrorKind.UNSENT] * 3]
    assert results[2].detail == "2 requests were under way already"


async def test_a_cancelled_run_keeps_the_results_it_had() -> None:
    ended = asyncio.Event()
    async with simulated_server() as url:
        target = parse_target(url, model=MODEL)
        short, long = Errand(target, arrivals(1)[0]), Errand(target, arrivals(1, max_tokens=1000)[0])
        load = OpenLoop([long, short], timeout_s=DEADLINE_S, on_result=lambda _: ended.set())
        task = asyncio.create_task(load.run())
        async with asyncio.timeout(DEADLINE_S):
            await ended.wait()
        assert load.open == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert list(load.results) == [1]
    assert load.open == 0


def body(url: str, **more: str) -> tuple[Target, dict[str, object]]:
    target = parse_target(url, **{"model": "m", **more})  # type: ignore[arg-type]
    return target, json.loads(target.body(arrivals(1)[0]))


def test_urls_and_bodies_are_those_of_the_api() -> None:
    chat, asked = body("http://h:1/")
    assert (chat.url, asked["messages"]) == (
        "http://h:1/v1/chat/completions",
        [{"role": "user", "content": PROMPT}],
    )
    completions, asked = body("http://h:1/v1", api=Api.COMPLETION)
    assert (completions.url, asked["prompt"], asked["max_tokens"]) == ("http://h:1/v1/completions", PROMPT, 5)
    triton, asked = body("http://h:1/v2/models/llm/versions/1/generate_stream")
    assert (triton.url, triton.model) == ("http://h:1/v2/models/llm/versions/1/generate_stream", "llm")
    assert asked == {"text_input": PROMPT, "max_tokens": 5, "stream": True}


@pytest.mark.parametrize(
    "url",
    ["http://h/v1/chat/completions", "http://h?x=1", "http://h#x", "http://me:secret@h", "h:80", "http://h:99999"],
)
def test_what_is_no_root_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="Write it like"):
        parse_target(url, model="m")


async def test_the_first_model_is_asked_for() -> None:
    async with simulated_server() as url:
        assert await first_model(url) == MODEL


@pytest.mark.parametrize(
    ("answer", "status", "problem"),
    [
        (b'{"data": []}', 200, "lists no model"),
        (b"<html>", 200, "no list of models"),
        (b'{"data": ' + b"[" * 50_000, 200, "no list of models"),
        (b"{}", 404, "status 404"),
        (b" " * (2**20 + 1), 200, "more than 1 MiB"),
    ],
)
async def test_a_server_that_names_no_model_is_told_with_a_way_out(answer: bytes, status: int, problem: str) -> None:
    async with answering(answer, status=status) as root:
        with pytest.raises(ConfigError, match=rf"/v1/models .*{problem}.*--model"):
            await first_model(root)


async def test_nobody_there_is_told_in_words() -> None:
    async with answering(b"") as root:
        pass

    with pytest.raises(ConfigError, match="cannot be read: Connection refused"):
        await first_model(root)
