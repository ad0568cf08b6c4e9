"""Answers that are generated while the client waits: as one JSON object, or as server-sent events.

Flow: pieces → JSON or events → **answer** → HTTP response. A client that leaves ends the generation.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from tidegate.frontend.errors import ApiError, error_response
from tidegate.frontend.generator import GenerationError, Piece

SEND_TIMEOUT_S = 60.0
"""How long a client may take to read what was sent before it counts as gone."""

_EVENT_STREAM = "text/event-stream; charset=utf-8"
_JSON = "application/json"

RenderError = Callable[[ApiError], bytes]


class JsonAnswer:
    """An ASGI response that is one JSON object, made while the client waits."""

    def __init__(self, content: Coroutine[Any, Any, bytes], *, render_error: RenderError) -> None:
        self._content = content
        self._render_error = render_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _until_disconnect(receive, self._send(scope, receive, send))

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = Response(await self._content, media_type=_JSON)
        except GenerationError as error:
            response = _failure(error, self._render_error)
        await response(scope, receive, send)


class EventStreamAnswer:
    """An ASGI response whose events are sent as they come.

    The response headers are held back until the first event exists: a server that dies or gives up before that has
    said nothing yet, so the client gets a true HTTP status, or none, and the gateway can retry elsewhere. A stream
    that fails later cannot take back its 200: it ends with an error event, and the connection is cut.
    """

    def __init__(self, events: AsyncGenerator[bytes, None], *, render_error: RenderError) -> None:
        self._events = events
        self._render_error = render_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            await _until_disconnect(receive, self._send(scope, receive, send))

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            first = await anext(self._events)
        except GenerationError as error:
            await _failure(error, self._render_error)(scope, receive, send)
            return
        headers = [(b"content-type", _EVENT_STREAM.encode()), (b"cache-control", b"no-cache")]
        await _send_in_time(send, {"type": "http.response.start", "status": 200, "headers": headers})
        await _send_in_time(send, _body(first))
        try:
            async for event in self._events:
                await _send_in_time(send, _body(event))
        except GenerationError as error:
            failure = ApiError(str(error), status=error.status, param=error.param)
            await _send_in_time(send, _body(b"data: " + self._render_error(failure) + b"\n\n"))
        else:
            await _send_in_time(send, {"type": "http.response.body", "body": b"", "more_body": False})


async def collect(pieces: AsyncGenerator[Piece, None]) -> tuple[str, Piece]:
    """Return the whole text, and the last piece with the reason and the usage."""
    texts: list[str] = []
    async with aclosing(pieces):
        async for piece in pieces:
            texts.append(piece.text)
            last = piece
    return "".join(texts), last


def _failure(error: GenerationError, render_error: RenderError) -> Response:
    failure = ApiError(str(error), status=error.status, param=error.param)
    return error_response(failure, render_error(failure))


def _body(part: bytes) -> Message:
    return {"type": "http.response.body", "body": part, "more_body": True}


async def _send_in_time(send: Send, message: Message) -> None:
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await send(message)
    except TimeoutError:
        raise _ClientGone from None


class _ClientGone(Exception):  # noqa: N818 - not an error: clients leave
    """The client stopped reading."""


async def _until_disconnect(receive: Receive, answer: Coroutine[Any, Any, None]) -> None:
    """Run `answer`, but not on after the client has left."""
    sending = asyncio.create_task(answer, name="answer")
    watching = asyncio.create_task(_wait_for_disconnect(receive), name="watch the client")
    try:
        await asyncio.wait({sending, watching}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, watching):
            task.cancel()
        outcomes = await asyncio.gather(sending, watching, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception) and not isinstance(outcome, _ClientGone):
            raise outcome


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
