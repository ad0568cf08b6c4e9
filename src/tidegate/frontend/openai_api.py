"""OpenAI's Completions and Chat Completions.

Flow: body → GenerationRequest → Generator → pieces → **JSON or server-sent events**.
"""

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request

from tidegate.frontend.answers import EventStreamAnswer, JsonAnswer, collect
from tidegate.frontend.body import parse_body, read_body
from tidegate.frontend.chat_prompt import ChatTemplate
from tidegate.frontend.errors import ApiError, render_openai_error
from tidegate.frontend.generator import FinishReason, GenerationRequest, Generator, Piece, Usage
from tidegate.frontend.openai_types import ChatBody, CompletionBody
from tidegate.frontend.stops import cut_at_stops

DEFAULT_COMPLETION_TOKENS = 16
"""The limit of `/v1/completions` where none is given. Source: OpenAI's API reference."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class _Kind:
    """What tells the two kinds of answers apart."""

    id_prefix: str
    object: str
    chunk_object: str
    # A choice of a stream is `opening` (only the first) or `continuing`, the text, `closing`, the reason.
    opening: bytes
    continuing: bytes
    closing: bytes

    def choice(self, text: str, reason: FinishReason | None) -> dict[str, Any]:
        """Return the one choice of an answer that is not streamed."""
        content: dict[str, Any] = {"text": text}
        if self is _CHAT:
            content = {"message": {"role": "assistant", "content": text}}
        return {"index": 0, **content, "logprobs": None, "finish_reason": reason}


_COMPLETION = _Kind(
    id_prefix="cmpl-",
    object="text_completion",
    chunk_object="text_completion",
    opening=b'{"index":0,"text":',
    continuing=b'{"index":0,"text":',
    closing=b',"logprobs":null,"finish_reason":',
)
_CHAT = _Kind(
    id_prefix="chatcmpl-",
    object="chat.completion",
    chunk_object="chat.completion.chunk",
    opening=b'{"index":0,"delta":{"role":"assistant","content":',
    continuing=b'{"index":0,"delta":{"content":',
    closing=b'},"logprobs":null,"finish_reason":',
)

Answer = EventStreamAnswer | JsonAnswer


class OpenAiApi:
    """The two endpoints; each answer's `system_fingerprint` is the server's name, to tell who served it."""

    def __init__(self, generator: Generator, *, name: str, chat_template: ChatTemplate, body_limit_bytes: int) -> None:
        self._generator = generator
        self._chat_template = chat_template
        self._name = name
        self._body_limit_bytes = body_limit_bytes

    async def completions(self, request: Request) -> Answer:
        """`POST /v1/completions`."""
        body = parse_body(await read_body(request, limit_bytes=self._body_limit_bytes), CompletionBody)
        self._check(body)
        prompt = body.parse_prompt()
        max_tokens = DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
        pieces = self._generate(body, prompt, max_tokens)
        if body.echo and isinstance(prompt, str):
            pieces = _echo(prompt, pieces)
        return self._answer(_COMPLETION, body, pieces)

    async def chat_completions(self, request: Request) -> Answer:
        """`POST /v1/chat/completions`."""
        body = parse_body(await read_body(request, limit_bytes=self._body_limit_bytes), ChatBody)
        self._check(body)
        prompt = self._chat_template.render(body.parse_conversation())
        return self._answer(_CHAT, body, self._generate(body, prompt, body.token_limit))

    def _check(self, body: CompletionBody | ChatBody) -> None:
        if body.model not in self._generator.models():
            if not self._generator.ready():
                raise ApiError("This server is not ready, and does not know its models", status=503)
            message = f"The model {body.model[:200]!r} does not exist here. Use one of GET /v1/models"
            raise ApiError(message, status=404, param="model", code="model_not_found")
        body.refuse_what_cannot_be_done()

    def _generate(
        self, body: CompletionBody | ChatBody, prompt: str | list[int], max_tokens: int | None
    ) -> AsyncGenerator[Piece, None]:
        sampling = body.parse_sampling()
        pieces = self._generator.generate(
            GenerationRequest(model=body.model, prompt=prompt, max_tokens=max_tokens, sampling=sampling)
        )
        return cut_at_stops(pieces, sampling.stop) if sampling.stop else pieces

    def _answer(self, kind: _Kind, body: CompletionBody | ChatBody, pieces: AsyncGenerator[Piece, None]) -> Answer:
        head = {
            "id": f"{kind.id_prefix}{uuid.uuid4().hex}",
            "object": kind.chunk_object if body.stream else kind.object,
            "created": int(time.time()),
            "model": body.model,
            "system_fingerprint": self._name,
        }
        if body.stream:
            events = _render_events(pieces, kind, head, include_usage=body.includes_usage)
            return EventStreamAnswer(events, render_error=render_openai_error)
        return JsonAnswer(_render_whole(pieces, kind, head), render_error=render_openai_error)


async def _echo(prompt: str, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
    """Yield the prompt before the answer, once that has begun: until then a failure is an HTTP status."""
    async with aclosing(pieces):
        async for piece in pieces:
            yield Piece(prompt + piece.text, piece.finish_reason, piece.usage)
            break
        async for piece in pieces:
            yield piece


async def _render_whole(pieces: AsyncGenerator[Piece, None], kind: _Kind, head: dict[str, Any]) -> bytes:
    text, last = await collect(pieces)
    choice = kind.choice(text, last.finish_reason)
    return _encode({**head, "choices": [choice], "usage": _usage(last)})


async def _render_events(
    pieces: AsyncGenerator[Piece, None], kind: _Kind, head: dict[str, Any], *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    # All but the text is the same in every event, so it is encoded once: a token costs a join, not a JSON object.
    before_choices = b"data: " + _encode(head)[:-1] + b',"choices":['
    after_choices = (b'],"usage":null}' if include_usage else b"]}") + b"\n\n"
    start = before_choices + kind.opening
    between = kind.closing + b"null}" + after_choices
    async with aclosing(pieces):
        async for piece in pieces:
            text = _encode(piece.text)
            if piece.finish_reason is None:
                yield b"".join((start, text, between))
            else:
                event = b"".join((start, text, kind.closing, _encode(piece.finish_reason), b"}", after_choices))
                usage = before_choices + b'],"usage":' + _encode(_usage(piece)) + b"}\n\n" if include_usage else b""
                yield event + usage + b"data: [DONE]\n\n"
            start = before_choices + kind.continuing


def _usage(last: Piece) -> dict[str, Any]:
    usage = last.usage or Usage(prompt_tokens=0, completion_tokens=0, cached_tokens=0)
    counts: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
    return counts | {"estimated": True} if usage.estimated else counts
