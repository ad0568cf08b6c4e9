"""Sends a workload to servers that stream their answers, each request at its own time.

Bench: workload → **client** → results → report. Open loop: a slow server does not slow the arrivals down, as its users
would not wait for each other.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp

from tidegate.bench.results import ErrorKind, RequestResult
from tidegate.bench.stream import MalformedStreamError, StreamReader
from tidegate.bench.target import Target, parse_target
from tidegate.bench.workload import Arrival

_KEEP_ALIVE_S = 2.0  # Below any common server's own, so that no request is sent into a connection about to close.
_ERROR_BODY_BYTES = 500
_HEADERS = {"Content-Type": "application/json", "Accept": "text/event-stream", "Accept-Encoding": "identity"}


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
    target = parse_target(url, model=model)
    load = OpenLoop([Errand(target, arrival) for arrival in arrivals], timeout_s=timeout_s, on_result=on_result)
    await load.run()
    return [load.results[i] for i in range(len(arrivals))]


@dataclass(frozen=True, slots=True)
class Errand:
    """One request, and whom it is for."""

    target: Target
    arrival: Arrival


class OpenLoop:
    """A run under way. What is known of it can be read at any time, also after it was cancelled."""

    def __init__(
        self,
        errands: Sequence[Errand],
        *,
        timeout_s: float,
        max_open: int | None = None,
        on_result: Callable[[RequestResult], None] | None = None,
    ) -> None:
        """`max_open`: requests that may be under way; one more that is due is not sent, and fails. None: no bound."""
        self._errands = errands
        self._timeout_s = timeout_s
        self._max_open = max_open
        self._on_result = on_result
        # Encoded beforehand, not when every request is due.
        self._bodies = [errand.target.body(errand.arrival) for errand in errands]
        self._open: set[_Request] = set()
        self._chunks_of_ended: Counter[Target] = Counter()
        self.results: dict[int, RequestResult] = {}
        """Results of those that ended, by their place in `errands`."""

    @property
    def open(self) -> int:
        """Requests under way."""
        return len(self._open)

    def streamed(self, target: Target) -> int:
        """Return how many events with text have come from `target` so far."""
        under_way = sum(request.stream.content_chunks for request in self._open if request.target == target)
        return self._chunks_of_ended[target] + under_way

    async def run(self) -> None:
        """Send every request when it is due and read all answers; cancelled, it leaves none behind."""
        # Limits of the client's own would queue requests that are due.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S)
        no_timeout = aiohttp.ClientTimeout(total=None)  # each request has its own, counted from when it is due
        async with aiohttp.ClientSession(connector=connector, timeout=no_timeout, auto_decompress=False) as session:
            # uvloop's own clock counts whole milliseconds, as of the last round of the loop.
            start = time.monotonic()
            async with asyncio.TaskGroup() as tasks:
                for i in sorted(range(len(self._errands)), key=lambda i: self._errands[i].arrival.at_s):
                    due = start + self._errands[i].arrival.at_s
                    await asyncio.sleep(due - time.monotonic())
                    if self._max_open is not None and len(self._open) >= self._max_open:
                        self._end(i, self._not_sent(i, due))
                        continue
                    request = _Request(session, self._errands[i], self._bodies[i], due)
                    self._open.add(request)
                    tasks.create_task(self._send(i, request), name=f"load request {i}")

    async def _send(self, i: int, request: "_Request") -> None:
        try:
            result = await request.run(self._timeout_s)
        finally:
            self._open.discard(request)
            self._chunks_of_ended[request.target] += request.stream.content_chunks
        self._end(i, result)

    def _end(self, i: int, result: RequestResult) -> None:
        self.results[i] = result
        if self._on_result is not None:
            self._on_result(result)

    def _not_sent(self, i: int, due: float) -> RequestResult:
        return RequestResult(
            at_s=self._errands[i].arrival.at_s,
            late_s=max(0.0, time.monotonic() - due),
            status=None,
            error=ErrorKind.UNSENT,
            detail=f"{self._max_open} requests were under way already",
            ttft_s=None,
            e2e_s=0.0,
            tpot_s=None,
            output_tokens=0,
            served_by=None,
        )


class _Request:
    """One request under way: what is known of it grows until `run` returns the result."""

    def __init__(self, session: aiohttp.ClientSession, errand: Errand, body: bytes, due: float) -> None:
        """`due`: by time.monotonic."""
        self.target = errand.target
        self.stream = StreamReader(errand.target.dialect)
        self._session = session
        self._body = body
        self._at_s = errand.arrival.at_s
        self._due = due
        self._status: int | None = None

    async def run(self, timeout_s: float) -> RequestResult:
        """Send the request and read its answer; whatever goes wrong with the peer is in the result."""
        now = time.monotonic()
        late_s = max(0.0, now - self._due)
        # The loop's timers round: one that was a little early must not flatter the server either.
        began = min(now, self._due)
        try:
            async with asyncio.timeout(self._due + timeout_s - now):
                error, detail = await self._exchange()
        except TimeoutError:
            error, detail = ErrorKind.TIMEOUT, f"no complete answer within {timeout_s:g} s"
        except MalformedStreamError as malformed:
            error, detail = ErrorKind.MALFORMED, str(malformed)
        except (aiohttp.ClientError, OSError) as failure:
            error = ErrorKind.CONNECT if self._status is None else ErrorKind.TRUNCATED
            detail = failure_words(failure)
        return self._result(began, late_s, error, detail)

    async def _exchange(self) -> tuple[ErrorKind | None, str]:
        post = self._session.post(self.target.url, data=self._body, headers=_HEADERS, allow_redirects=False)
        async with post as response:
            self._status = response.status
            if response.status != 200:
                body = await response.content.read(_ERROR_BODY_BYTES)
                return ErrorKind.STATUS, f"status {response.status}: {body.decode(errors='replace')}"
            async for data in response.content.iter_any():
                self.stream.feed(data, time.monotonic())
        if self.stream.error is not None:
            return ErrorKind.EVENT, self.stream.error
        if not self.stream.complete:
            return ErrorKind.TRUNCATED, "the stream ended without [DONE]"
        return None, ""

    def _result(self, began: float, late_s: float, error: ErrorKind | None, detail: str) -> RequestResult:
        stream = self.stream
        tpot_s = None
        if stream.first_content_at is not None and stream.last_content_at is not None and stream.output_tokens > 1:
            tpot_s = (stream.last_content_at - stream.first_content_at) / (stream.output_tokens - 1)
        return RequestResult(
            at_s=self._at_s,
            late_s=late_s,
            status=self._status,
            error=error,
            detail=detail,
            ttft_s=None if stream.first_content_at is None else stream.first_content_at - began,
            e2e_s=time.monotonic() - began,
            tpot_s=tpot_s,
            output_tokens=stream.output_tokens,
            served_by=stream.served_by,
            counted=stream.usage is not None,
            prompt_tokens=None if stream.usage is None else stream.usage.prompt_tokens,
            cached_tokens=None if stream.usage is None else stream.usage.cached_tokens,
        )


def failure_words(failure: aiohttp.ClientError | OSError) -> str:
    """Return what went wrong, in words."""
    cause = failure.os_error if isinstance(failure, aiohttp.ClientConnectorError) else failure
    # Of the system's own errors aiohttp tells in terms of its Python calls.
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno)
    return str(failure) or type(failure).__name__
