"""The Triton generator before a Triton that does what the real one cannot be made to do."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
import tokenizers
from tritonclient.grpc import service_pb2, service_pb2_grpc

from processes import until
from tidegate.frontend.generator import GenerationError, GenerationRequest, Piece, Sampling
from tidegate.frontend.triton import client as client_module
from tidegate.frontend.triton.generator import TritonGenerator
from tidegate.frontend.triton.model_io import TextModel
from tidegate.frontend.triton.token_counts import COUNTED_AT_ONCE, TokenCounter, read_tokenizer
from tidegate.protocol.errors import ConfigError

Stream = AsyncGenerator[Any, None]
Script = Callable[[grpc.aio.ServicerContext], Stream]


def response(*texts: str, data: bool = True) -> Any:
    """Return a response with an output for each text."""
    message = service_pb2.ModelInferResponse()
    for text in texts:
        message.outputs.add(name="text_output", datatype="BYTES", shape=[1])
        if data:
            message.raw_output_contents.append(struct.pack("<I", len(text)) + text.encode())
    return service_pb2.ModelStreamInferResponse(infer_response=message)


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """One model `m`; its answers follow a script."""

    def __init__(self) -> None:
        self.script: Script
        self.answers = asyncio.Event()
        """Questions wait for it."""
        self.answers.set()
        self.decoupled = True
        self.parameters: dict[str, str] = {}
        self.cancelled = asyncio.Event()
        """Set when a scripted stream was cancelled."""

    async def ServerLive(self, _: Any, __: Any) -> Any:  # noqa: N802
        await self.answers.wait()
        return service_pb2.ServerLiveResponse(live=True)

    async def RepositoryIndex(self, _: Any, __: Any) -> Any:  # noqa: N802
        index = service_pb2.RepositoryIndexResponse()
        index.models.add(name="m", version="1", state="READY")
        index.models.add(name="gone", version="1", state="UNAVAILABLE")
        return index

    async def ModelMetadata(self, _: Any, __: Any) -> Any:  # noqa: N802
        metadata = service_pb2.ModelMetadataResponse(name="m")
        metadata.inputs.add(name="text_input", datatype="BYTES", shape=[1])
        metadata.outputs.add(name="text_output", datatype="BYTES", shape=[1])
        return metadata

    async def ModelConfig(self, _: Any, __: Any) -> Any:  # noqa: N802
        answer = service_pb2.ModelConfigResponse()
        answer.config.model_transaction_policy.decoupled = self.decoupled
        for name, value in self.parameters.items():
            answer.config.parameters[name].string_value = value
        return answer

    async def ModelStreamInfer(self, _: Any, context: grpc.aio.ServicerContext) -> Stream:  # noqa: N802
        try:
            async for message in self.script(context):
                yield message
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def ModelInfer(self, _: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        return (await anext(self.ModelStreamInfer(_, context))).infer_response


async def no_metrics() -> bytes:
    return b""


@contextlib.asynccontextmanager
async def running(counter: TokenCounter | None = None) -> AsyncIterator[tuple[FakeTriton, TritonGenerator]]:
    """Run a generator before a fake Triton until the end of the block."""
    triton = FakeTriton()
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    generator = TritonGenerator(f"127.0.0.1:{port}", fetch_metrics=no_metrics, counter=counter)
    driver = asyncio.create_task(generator.run())
    try:
        await until(lambda: said(generator.ready()))
        yield triton, generator
    finally:
        driver.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await driver
        await server.stop(None)


def said(answer: bool) -> Awaitable[bool]:
    """Return an answer as `until` wants it."""
    future = asyncio.get_running_loop().create_future()
    future.set_result(answer)
    return future


def ask(**sampling: Any) -> GenerationRequest:
    return GenerationRequest(model="m", prompt="how high", max_tokens=None, sampling=Sampling(**sampling))


async def failure_of(generator: TritonGenerator) -> tuple[list[str], GenerationError]:
    """Return the texts that came, and the error after them."""
    texts: list[str] = []

    async def read() -> None:
        async for piece in generator.generate(ask()):
            texts.append(piece.text)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(GenerationError) as failed:
        await read()
    return texts, failed.value


async def pieces_of(generator: TritonGenerator, **sampling: Any) -> list[Piece]:
    return [piece async for piece in generator.generate(ask(**sampling))]


def aborting(status: grpc.StatusCode, details: str) -> Script:
    async def script(context: grpc.aio.ServicerContext) -> Stream:
        yield response("one")
        await context.abort(status, details)

    return script


@pytest.mark.parametrize(
    ("status", "http"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        (grpc.StatusCode.UNAVAILABLE, 503),
        (grpc.StatusCode.CANCELLED, 503),
        (grpc.StatusCode.DATA_LOSS, 502),
    ],
)
async def test_a_stream_that_ends_with_a_status_is_an_error_with_one(status: grpc.StatusCode, http: int) -> None:
    async with running() as (triton, generator):
        triton.script = aborting(status, "why not")

        texts, error = await failure_of(generator)

        assert (texts, error.status) == (["one"], http)


async def test_a_response_without_data_is_malformed() -> None:
    async def script(_: grpc.aio.ServicerContext) -> Stream:
        yield response("one", data=False)

    async with running() as (triton, generator):
        triton.script = script

        texts, error = await failure_of(generator)

        assert (texts, error.status) == ([], 502)
        assert str(error) == "Triton's response has 1 outputs, and data for 0"


async def test_a_response_above_the_limit_is_refused() -> None:
    async def script(_: grpc.aio.ServicerContext) -> Stream:
        yield response("x" * (client_module.MAX_MESSAGE_BYTES + 1))

    async with running() as (triton, generator):
        triton.script = script

        texts, error = await failure_of(generator)

        assert (texts, error.status) == ([], 502)
        assert "larger than this server's limit" in str(error)


@pytest.mark.parametrize("decoupled", [True, False])
async def test_closing_a_generator_cancels_the_request(decoupled: bool) -> None:
    started = asyncio.Event()

    async def script(_: grpc.aio.ServicerContext) -> Stream:
        started.set()
        if decoupled:
            yield response("one")
        await asyncio.Event().wait()

    async with running() as (triton, generator):
        triton.script = script
        triton.decoupled = decoupled
        await until(lambda: said(model_of(generator).decoupled is decoupled))

        async def read() -> None:
            async with aclosing(generator.generate(ask())) as pieces:
                async for _ in pieces:
                    pass

        reading = asyncio.create_task(read())
        await started.wait()
        reading.cancel()

        async with asyncio.timeout(5):
            await triton.cancelled.wait()
        with pytest.raises(asyncio.CancelledError):
            await reading


def model_of(generator: TritonGenerator) -> TextModel:
    """Return what the generator knows of the model."""
    return generator._catalogue.models["m"]


async def test_a_model_that_is_configured_anew_is_seen_anew() -> None:
    async with running() as (triton, generator):
        assert not model_of(generator).repeats

        triton.parameters = {"accumulate_tokens": "True"}

        await until(lambda: said(model_of(generator).repeats))


async def test_a_triton_that_hangs_is_not_ready_and_its_models_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "CALL_TIMEOUT_S", 0.1)
    async with running() as (triton, generator):
        assert generator.models() == ["m"]

        triton.answers.clear()
        await until(lambda: said(not generator.ready()))
        assert generator.models() == ["m"]

        triton.answers.set()
        await until(lambda: said(generator.ready()))


async def test_streams_end_with_an_error_when_the_generator_stops() -> None:
    async def script(_: grpc.aio.ServicerContext) -> Stream:
        yield response("one")
        await asyncio.Event().wait()

    async with running() as (triton, generator):
        triton.script = script
        pieces = generator.generate(ask())
        assert (await anext(pieces)).text == "one"
        rest = asyncio.ensure_future(anext(pieces))

    with pytest.raises(GenerationError, match="The server is stopping"):
        await rest
    with pytest.raises(GenerationError, match="is stopping or has not started"):
        await anext(generator.generate(ask()))


async def two_words(_: grpc.aio.ServicerContext) -> Stream:
    yield response("one")
    yield response(" two three")


async def test_what_is_not_reported_is_estimated_and_marked() -> None:
    async with running() as (triton, generator):
        triton.script = two_words

        first, second, last = await pieces_of(generator)

        assert (first.usage, second.usage) == (None, None)
        assert last.usage is not None
        assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.estimated) == (2, 2, True)


async def test_a_tokenizer_counts_what_is_not_reported(tmp_path: Path) -> None:
    async with running(read_tokenizer(tokenizer_file(tmp_path))) as (triton, generator):
        triton.script = two_words

        *_, last = await pieces_of(generator)

        assert last.usage is not None
        # The prompt has one token more, which the tokenizer adds.
        assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.estimated) == (3, 3, False)


async def test_every_piece_has_its_usage_where_a_text_may_end_the_answer() -> None:
    async with running() as (triton, generator):
        triton.script = two_words

        pieces = await pieces_of(generator, stop=("x",))

        assert [piece.usage.completion_tokens for piece in pieces if piece.usage] == [1, 2, 2]


def tokenizer_file(directory: Path) -> Path:
    """Write a tokenizer whose tokens are words, with one before all."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "<s>": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    path = directory / "tokenizer.json"
    tokenizer.save(str(path))
    return path


async def test_long_texts_are_counted_beside_the_event_loop(tmp_path: Path) -> None:
    counter = read_tokenizer(tokenizer_file(tmp_path))
    words = COUNTED_AT_ONCE * 100
    clock = asyncio.get_running_loop().time
    turns = [clock()]

    async def note_turns() -> None:
        while True:
            await asyncio.sleep(0.001)
            turns.append(clock())

    noting = asyncio.create_task(note_turns())
    assert await counter.count_answer("tide " * words) == words
    noting.cancel()

    longest_s = max(later - earlier for earlier, later in pairwise([*turns, clock()]))
    assert longest_s < (clock() - turns[0]) / 2


@pytest.mark.parametrize(
    ("content", "problem"), [("{}", "no tokenizer"), ("", "no tokenizer"), (b"\xff\xfe", "cannot be read")]
)
def test_a_file_that_is_no_tokenizer_is_told(tmp_path: Path, content: str | bytes, problem: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(ConfigError, match=f"tokenizer.json: {problem}"):
        read_tokenizer(path)
    with pytest.raises(ConfigError, match="nowhere: cannot be read"):
        read_tokenizer(tmp_path / "nowhere")
