"""Sends a workload to an OpenAI-compatible server, each request at its own time.

Bench: workload → **client** → results → report. Open loop: a slow server does not slow the arrivals down, as its users
would not wait for each other.
"""

import asyncio
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import aiohttp
import msgspec

from tidegate.bench.results import ErrorKind, RequestResult
from tidegate.bench.stream import MalformedStreamError, StreamReader
from tidegate.bench.workload import Arrival
from tidegate.protocol.errors import ConfigError

_KEEP_ALIVE_S = 2.0  # Below any common server's own, so that no request is sent into a connection about to close.
_ERROR_BODY_BYTES = 500


async def run_load(
    url: str,
    arrivals: Sequence[Arrival],
    *,
    model: str,
    timeout_s: float = 120.0,
    on_result: Callable[[RequestResult], None] | None = None,
) -> list[RequestResult]:
    """Send `arrivals` as streamed chat completions to `url`; return one result each, in their order.

    `url` is the server's root, such as http://127.0.0.1:8080. A request is given up `timeout_s` after it was due.
    `on_result` is called as each one ends. A failed request is a result too; raises ConfigError for a bad `url`.
    """
    target = _completions_url(url)
    bodies = [_body(arrival, model) for arrival in arrivals]  # encoded beforehand, not when every request is due
    # Limits of the client's own would queue requests that are due.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S)
    no_timeout = aiohttp.ClientTimeout(total=None)  # each request has its own, counted from when it is due
    results: list[RequestResult | None] = [None] * len(arrivals)
    loop = asyncio.get_running_loop()

    async with aiohttp.ClientSession(connector=connector, timeout=no_timeout, auto_decompress=False) as session:
        start = loop.time()

        async def send(i: int) -> None:
            result = await _Request(session, target, bodies[i], start, arrivals[i].at_s, timeout_s).run()
            results[i] = result
            if on_result is not None:
                on_result(result)

        async with asyncio.TaskGroup() as tasks:
            for i in sorted(range(len(arrivals)), key=lambda i: arrivals[i].at_s):
                await asyncio.sleep(start + arrivals[i].at_s - loop.time())
                tasks.create_task(send(i), name=f"load request {i}")
    return [result for result in results if result is not None]


class _Request:
    """One request under way: what is known of it grows until `run` returns the result."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, body: bytes, start: float, at_s: float, timeout_s: float
    ) -> None:
        self._session = session
        self._url = url
        self._body = body
        self._at_s = at_s
        self._due = start + at_s
        self._timeout_s = timeout_s
        self._status: int | None = None
        self._stream = StreamReader()

    async def run(self) -> RequestResult:
        """Send the request and read its answer; whatever goes wrong with the peer is in the result."""
        loop = asyncio.get_running_loop()
        late_s = max(0.0, loop.time() - self._due)
        try:
            async with asyncio.timeout_at(self._due + self._timeout_s):
                error, detail = await self._exchange(loop)
        except TimeoutError:
            error, detail = ErrorKind.TIMEOUT, f"no complete answer within {self._timeout_s:g} s"
        except MalformedStreamError as malformed:
            error, detail = ErrorKind.MALFORMED, str(malformed)
        except (aiohttp.ClientError, OSError) as failure:
            error = ErrorKind.CONNECT if self._status is None else ErrorKind.TRUNCATED
            detail = str(failure) or type(failure).__name__
        return self._result(late_s, loop.time() - self._due, error, detail)

    async def _exchange(self, loop: asyncio.AbstractEventLoop) -> tuple[ErrorKind | None, str]:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream", "Accept-Encoding": "identity"}
        async with self._session.post(self._url, data=self._body, headers=headers, allow_redirects=False) as response:
            self._status = response.status
            if response.status != 200:
                body = await response.content.read(_ERROR_BODY_BYTES)
                return ErrorKind.STATUS, f"status {response.status}: {body.decode(errors='replace')}"
            async for data in response.content.iter_any():
                self._stream.feed(data, loop.time())
        if self._stream.error is not None:
            return ErrorKind.EVENT, self._stream.error
        if not self._stream.done:
            return ErrorKind.TRUNCATED, "the stream ended without [DONE]"
        return None, ""

    def _result(self, late_s: float, e2e_s: float, error: ErrorKind | None, detail: str) -> RequestResult:
        stream = self._stream
        tpot_s = None
        if stream.first_content_at is not None and stream.last_content_at is not None and stream.output_tokens > 1:
            tpot_s = (stream.last_content_at - stream.first_content_at) / (stream.output_tokens - 1)
        return RequestResult(
            at_s=self._at_s,
            late_s=late_s,
            status=self._status,
            error=error,
            detail=detail,
            ttft_s=None if stream.first_content_at is None else stream.first_content_at - self._due,
            e2e_s=e2e_s,
            tpot_s=tpot_s,
            output_tokens=stream.output_tokens,
            served_by=stream.served_by,
        )


def _completions_url(url: str) -> str:
    fix = "Write it like http://127.0.0.1:8080."
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is not a URL: {error}", fix=fix) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise ConfigError(f"{url!r} is not an http URL", fix=fix)
    return f"{url.rstrip('/')}/v1/chat/completions"


def _body(arrival: Arrival, model: str) -> bytes:
    return msgspec.json.encode(
        {
            "model": model,
            "messages": [{"role": "user", "content": arrival.prompt}],
            "max_tokens": arrival.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )
