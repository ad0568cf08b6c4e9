"""A GET over one kept connection: an asyncio.Protocol of our own, with limits and a timeout on everything.

A general client spends 0.2 ms on a small request; a thousand endpoints scraped often would fill a core.
"""

import asyncio
import contextlib
import errno
import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from tidegate.protocol.errors import ConfigError, ScrapeError, ScrapeFailure
from tidegate.scrape.answer import AnswerReader, HttpAnswer
from tidegate.scrape.look_up import LookUp

MAX_BODY_BYTES = 2 * 2**20
"""Default limit on a body; the largest exposition seen had 84 kB."""

_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""What connecting fails with for want of something on this side, as it does to healthy servers too."""
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})")
_TARGET = re.compile(r"/[!-~]*")


@dataclass(frozen=True, slots=True)
class HttpUrl:
    """Where to GET something, without TLS."""

    host: str
    """Host name or IP address; IPv6 without brackets."""
    port: int
    path: str = "/"
    """Path with the query, if any."""

    def __post_init__(self) -> None:
        # A path with spaces or line breaks would write headers of its own into the request.
        if not _TARGET.fullmatch(self.path):
            raise ConfigError(f"malformed path {self.path[:100]!r}", fix="Begin it with / and percent-encode the rest.")

    @property
    def authority(self) -> str:
        """``host:port``, with brackets around IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"http://{self.authority}{self.path}"


def parse_url(text: str) -> HttpUrl:
    """Read ``http://host[:port][/path]``; the port is 80 unless given.

    Raises:
        ConfigError: it is something else, or uses TLS.
    """
    if not text.isascii() or not text.isprintable() or " " in text:
        raise _bad_url(text, "it has spaces, control characters or non-ASCII letters")
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
    except ValueError as error:
        raise _bad_url(text, str(error)) from error
    try:
        port = parts.port
    except ValueError as error:
        raise _bad_url(text, "the port is no number from 1 to 65535") from error
    if parts.scheme == "https":
        raise _bad_url(text, "https is not supported yet", fix="Use the server's plain HTTP port.")
    if parts.scheme != "http" or not text[5:].startswith("//"):
        raise _bad_url(text, "it does not begin with http://")
    if "@" in parts.netloc or parts.fragment:
        raise _bad_url(text, "user names, passwords and fragments are not supported")
    if port == 0 or not _is_host(host, bracketed="[" in parts.netloc):
        raise _bad_url(text, f"{parts.netloc!r} is no host:port")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return HttpUrl(host=host, port=port or 80, path=path)


class HttpConnection:
    """GETs from one server, one at a time, over a connection that is kept as long as the server keeps it.

    Nothing is connected before the first `get`. The owner calls `close` at the end.
    """

    def __init__(self, host: str, port: int, *, timeout_s: float, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._host = host
        self._port = port
        self._look_up = LookUp(host)
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._kept: _Connection | None = None

    async def get(self, path: str) -> HttpAnswer:
        """Return the whole answer, whatever its status; redirects are not followed.

        Connects when no connection is kept, to the first address that the host has by then and that lets us. When a
        kept connection turns out to be dead, asks once more over a new one.

        Raises:
            ScrapeError: no answer within `timeout_s`, connecting included, or not one that can be read; its `reason`
                tells which, its message names the URL.
        """
        url = HttpUrl(self._host, self._port, path)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask(_render_request(url))
        except TimeoutError as error:
            problem = f"no whole answer within {self._timeout_s:g} s"
            raise ScrapeError(problem, reason=ScrapeFailure.TIMEOUT, url=str(url)) from error
        except ScrapeError as error:
            raise ScrapeError(error.problem, reason=error.reason, url=str(url)) from error

    async def wait_closed(self) -> None:
        """Return as soon as the connection kept by the last `get` is closed, by whomever; at once if it is already.

        For the time between two gets: a server that was killed is noticed without asking it. Waits forever when the
        last `get` kept no connection or another is under way, so the caller bounds the wait.
        """
        if self._kept is None:
            await asyncio.get_running_loop().create_future()
        else:
            await self._kept.closed.wait()

    def disconnect(self) -> None:
        """Close the kept connection, if any; the next `get` opens another."""
        if self._kept is not None:
            self._kept.abort()
            self._kept = None

    def close(self) -> None:
        """Disconnect, and give up a look-up of the host that outlasted the `get` that wanted it."""
        self.disconnect()
        self._look_up.close()

    async def _ask(self, request: bytes) -> HttpAnswer:
        kept, self._kept = self._kept, None
        if kept is not None:
            try:
                return await self._exchange(kept, request)
            except ScrapeError as error:
                # The server restarted, or grew tired of the idle connection: only a new connection tells.
                if kept.answer_started or error.reason is not ScrapeFailure.CLOSED:
                    raise
        return await self._exchange(await self._connect(), request)

    async def _connect(self) -> "_Connection":
        try:
            first, *others = await self._look_up.addresses()
            try:
                return await self._connect_to(first)
            except OSError:
                for address in others:
                    with contextlib.suppress(OSError):
                        return await self._connect_to(address)
                raise  # What kept us from the preferred address tells the most.
        except (OSError, UnicodeError) as error:
            ours = isinstance(error, OSError) and error.errno in _OURS
            reason = ScrapeFailure.EXHAUSTED if ours else ScrapeFailure.UNREACHABLE
            raise ScrapeError(f"cannot connect: {_describe(error)}", reason=reason) from error

    async def _connect_to(self, address: str) -> "_Connection":
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self._max_body_bytes), address, self._port, flags=socket.AI_NUMERICHOST
        )
        return connection

    async def _exchange(self, connection: "_Connection", request: bytes) -> HttpAnswer:
        try:
            answer = await connection.exchange(request)
        except BaseException:  # A cancelled or failed exchange leaves bytes under way: the connection is spent.
            connection.abort()
            raise
        if connection.reusable:
            self._kept = connection
        else:
            connection.abort()
        return answer


class _Connection(asyncio.Protocol):
    """One TCP connection: writes a request, gathers the answer to it."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._transport: asyncio.Transport | None = None
        self._reader: AnswerReader | None = None
        self._answer: asyncio.Future[HttpAnswer] | None = None
        self.closed = asyncio.Event()
        self.answer_started = False
        """Whether a byte of the last answer has come."""
        self.reusable = False
        """Whether the last answer is complete, and the server will take another request."""

    async def exchange(self, request: bytes) -> HttpAnswer:
        """Send a request and return the answer; ScrapeError when there is none."""
        self.reusable = self.answer_started = False
        if self._transport is None or self.closed.is_set() or self._transport.is_closing():
            raise ScrapeError("the server closed the idle connection", reason=ScrapeFailure.CLOSED)
        self._reader = AnswerReader(self._max_body_bytes)
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._reader = self._answer = None  # A thousand idle connections must not hold a thousand bodies.

    def abort(self) -> None:
        """Close at once, dropping whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none, but has all of its methods.

    def data_received(self, data: bytes) -> None:
        if self._reader is None or self._answer is None or self._answer.done():
            self.reusable = False
            self.abort()  # Bytes that nobody asked for could be taken for the next answer.
            return
        self.answer_started = True
        try:
            answer = self._reader.feed(data)
        except ScrapeError as error:
            self._fail(error)
        else:
            if answer is not None:
                self._succeed(answer, reusable=self._reader.keep_alive)

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()
        if error is None:
            self._end()
        elif self._answer is not None and not self._answer.done():
            problem = f"the connection broke: {_describe(error)}"
            self._fail(ScrapeError(problem, reason=ScrapeFailure.CLOSED))

    def _end(self) -> None:
        """The server has sent all it will send."""
        if self._reader is None or self._answer is None or self._answer.done():
            return
        try:
            self._succeed(self._reader.end(), reusable=False)
        except ScrapeError as error:
            self._fail(error)

    def _succeed(self, answer: HttpAnswer, *, reusable: bool) -> None:
        self.reusable = reusable
        if self._answer is not None:
            self._answer.set_result(answer)

    def _fail(self, error: ScrapeError) -> None:
        self.abort()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def _render_request(url: HttpUrl) -> bytes:
    return (
        f"GET {url.path} HTTP/1.1\r\nHost: {url.authority}\r\nUser-Agent: tidegate\r\n"
        "Accept: text/plain;version=0.0.4, */*;q=0.1\r\nAccept-Encoding: identity\r\n\r\n"
    ).encode("ascii")


def _is_host(host: str, *, bracketed: bool) -> bool:
    if not bracketed:
        return _HOST_NAME.fullmatch(host) is not None
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _bad_url(text: str, problem: str, *, fix: str = "Write it as http://host:port/path.") -> ConfigError:
    return ConfigError(f"bad URL {text[:200]!r}: {problem}", fix=fix)


def _describe(error: Exception) -> str:
    # asyncio puts the address into the message of an OSError, uvloop does not; the URL names it already.
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno).lower()
    if isinstance(error, socket.gaierror) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
