"""Triton's generate extension, with the fields of the TensorRT-LLM backend: text_input and max_tokens → text_output."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import msgspec
from starlette.requests import Request

from tidegate.frontend.answers import EventStreamAnswer, JsonAnswer, collect
from tidegate.frontend.body import parse_body, read_body
from tidegate.frontend.errors import ApiError, error_response, render_triton_error
from tidegate.frontend.generator import GenerationRequest, Generator, Piece

_encode = msgspec.json.Encoder().encode


class GenerateBody(msgspec.Struct, frozen=True):
    """Body of `POST /v2/models/{model}/generate` and `…/generate_stream`."""

    text_input: Annotated[str, msgspec.Meta(min_length=1)]
    max_tokens: Annotated[int, msgspec.Meta(ge=1, lt=2**31)]


class TritonApi:
    """The two endpoints; the output `served_by` is the server's name."""

    def __init__(self, generator: Generator, *, name: str, body_limit_bytes: int) -> None:
        self._generator = generator
        self._name = name
        self._body_limit_bytes = body_limit_bytes

    async def generate(self, request: Request) -> object:
        """`POST /v2/models/{model}/generate`: the whole answer."""
        try:
            pieces = await self._generate(request)
        except ApiError as error:
            return error_response(error, render_triton_error(error))
        return JsonAnswer(self._render_whole(pieces, request), render_error=render_triton_error)

    async def generate_stream(self, request: Request) -> object:
        """`POST /v2/models/{model}/generate_stream`: an event for each token."""
        try:
            pieces = await self._generate(request)
        except ApiError as error:
            return error_response(error, render_triton_error(error))
        return EventStreamAnswer(self._render_events(pieces, request), render_error=render_triton_error)

    async def _generate(self, request: Request) -> AsyncGenerator[Piece, None]:
        model = request.path_params["model"]
        if model not in self._generator.models():
            raise ApiError(f"Request for unknown model: {model[:200]!r} is not found", status=404)
        body = parse_body(await read_body(request, limit_bytes=self._body_limit_bytes), GenerateBody)
        return self._generator.generate(
            GenerationRequest(model=model, prompt=body.text_input, max_tokens=body.max_tokens)
        )

    def _output(self, request: Request, text: str) -> bytes:
        model = request.path_params["model"]
        return _encode({"model_name": model, "model_version": "1", "served_by": self._name, "text_output": text})

    async def _render_whole(self, pieces: AsyncGenerator[Piece, None], request: Request) -> bytes:
        text, _ = await collect(pieces)
        return self._output(request, text)

    async def _render_events(
        self, pieces: AsyncGenerator[Piece, None], request: Request
    ) -> AsyncGenerator[bytes, None]:
        # The text is the last field, so that all before it is encoded once.
        start = b"data: " + self._output(request, "").removesuffix(b'""}')
        async with aclosing(pieces):
            async for piece in pieces:
                yield b"".join((start, _encode(piece.text), b"}\n\n"))
