"""What a client sees when the generator fails, or when the client itself leaves."""

import asyncio
import json
from collections.abc import AsyncGenerator

import aiohttp
import pytest

from frontends import MODEL, listening
from tidegate.frontend.app import create_app
from tidegate.frontend.generator import GenerationError, GenerationRequest, Piece, Usage

BODY = json.dumps({"model": MODEL, "prompt": "tide", "stream": True})


class ScriptedGenerator:
    """Gives a number of pieces, then fails, or waits for ever."""

    def __init__(self, pieces: int, failure: GenerationError | None = None) -> None:
        self.pieces = pieces
        self.failure = failure
        self.started = asyncio.Event()
        self.closed = asyncio.Event()

    def models(self) -> list[str]:
        return [MODEL]

    def ready(self) -> bool:
        return self.failure is None

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        self.started.set()
        try:
            for _ in range(self.pieces):
                yield Piece(f'"{request.prompt}" ')
            if self.failure:
                raise self.failure
            await asyncio.Event().wait()
            yield Piece("never", "stop", Usage(prompt_tokens=1, completion_tokens=1, cached_tokens=0))
        finally:
            self.closed.set()

    async def exposition(self) -> bytes:
        return b""


@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_before_the_first_token_has_a_true_status(stream: bool) -> None:
    generator = ScriptedGenerator(0, GenerationError("out of order", status=503))
    async with listening(create_app(generator, name="broken")) as url:
        body = json.dumps({"model": MODEL, "prompt": "tide", "stream": stream})
        async with aiohttp.request("POST", f"{url}/v1/completions", data=body) as answer:
            assert answer.status == 503
            assert (await answer.json())["error"]["message"] == "out of order"


async def test_a_failure_amid_a_stream_is_an_error_event_and_a_cut_connection() -> None:
    generator = ScriptedGenerator(2, GenerationError("out of order", status=503))
    async with listening(create_app(generator, name="broken")) as url:
        answered = await exchange(url)
    head, _, chunks = answered.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert not chunks.endswith(b"0\r\n\r\n")
    received = b"".join(line + b"\n\n" for line in chunks.splitlines() if line.startswith(b"data: "))
    *pieces, last = [json.loads(event.removeprefix("data: ")) for event in received.decode().strip().split("\n\n")]
    assert [piece["choices"][0]["text"] for piece in pieces] == ['"tide" '] * 2
    assert last["error"] == {"message": "out of order", "type": "server_error", "param": None, "code": None}


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send the request over a connection of its own."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(BODY)}\r\n\r\n"
    writer.write((head + BODY).encode())
    return reader, writer


async def exchange(url: str) -> bytes:
    """Return all that the server sends until it closes the connection."""
    reader, writer = await connect(url)
    answered = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    return answered


async def test_headers_wait_for_the_first_token() -> None:
    generator = ScriptedGenerator(0)
    async with listening(create_app(generator, name="slow")) as url:
        reader, writer = await connect(url)
        await asyncio.wait_for(generator.started.wait(), 10)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(generator.closed.wait(), 10)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_closes_the_generator(stream: bool) -> None:
    generator = ScriptedGenerator(3)
    async with listening(create_app(generator, name="patient")) as url:
        body = json.dumps({"model": MODEL, "prompt": "tide", "stream": stream})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), aiohttp.request("POST", f"{url}/v1/completions", data=body) as answer:
                await answer.read()
        await asyncio.wait_for(generator.closed.wait(), 10)


async def test_a_generator_that_is_not_ready_is_not_healthy() -> None:
    generator = ScriptedGenerator(0, GenerationError("out of order", status=503))
    async with listening(create_app(generator, name="broken")) as url:
        for path in ("/health", "/v2/health/ready"):
            async with aiohttp.request("GET", url + path) as answer:
                assert answer.status == 503
