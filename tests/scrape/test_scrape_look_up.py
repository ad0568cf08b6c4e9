"""Hosts by name: what is looked up and when, however slow, wrong or fickle the name server."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
import uvloop

from tidegate.protocol.errors import ScrapeError, ScrapeFailure
from tidegate.scrape.answer import HttpAnswer
from tidegate.scrape.http import HttpConnection, HttpUrl
from tidegate.scrape.probe import ExpositionSource

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[[Handler], Awaitable[int]]

ANSWER = HttpAnswer(200, "", b"hello")
DEADLINE_S = 10.0
SHORT_S = 0.05


class Names:
    """A name server that the test decides on; None: it keeps silent until told otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: Sequence[str] | None = None
        self.open = 0
        self.asked = 0
        self._told = asyncio.Event()
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self._getaddrinfo)

    def tell(self, *addresses: str) -> None:
        """Answer every question with these, also the open ones; none: there is no such name."""
        self.addresses = addresses
        self._told.set()

    def keep_silent(self) -> None:
        """Answer no further question."""
        self.addresses = None
        self._told.clear()

    async def _getaddrinfo(self, _: str, port: int | None, **__: object) -> list[tuple[Any, ...]]:
        self.asked += 1
        self.open += 1
        try:
            await self._told.wait()
        finally:
            self.open -= 1
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in self.addresses]


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.fixture
async def port(serve: Serve) -> int:
    """A server on 127.0.0.1 that closes every connection after its answer."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello")

    return await serve(handle)


@contextlib.asynccontextmanager
async def connection_to(host: str, port: int, *, timeout_s: float = DEADLINE_S) -> AsyncIterator[HttpConnection]:
    connection = HttpConnection(host, port, timeout_s=timeout_s)
    before = asyncio.all_tasks()
    try:
        yield connection
    finally:
        connection.close()
    async with asyncio.timeout(DEADLINE_S):
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0)


async def failure_of(asked: HttpConnection | ExpositionSource) -> ScrapeFailure:
    with pytest.raises(ScrapeError) as caught:
        await (asked.get("/metrics") if isinstance(asked, HttpConnection) else asked.read())
    return caught.value.reason


@contextlib.contextmanager
def no_complaint_of_the_loop() -> Iterator[None]:
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, complaint: complaints.append(complaint))
    yield
    loop.set_exception_handler(None)
    assert complaints == []


async def test_a_silent_name_server_is_asked_once_at_a_time_and_its_late_answer_is_used(
    names: Names, port: int
) -> None:
    async with connection_to("slow", port, timeout_s=SHORT_S) as connection:
        for _ in range(3):
            assert await failure_of(connection) is ScrapeFailure.TIMEOUT
            connection.disconnect()
        assert (names.asked, names.open) == (1, 1)

        names.tell("127.0.0.1")
        connection._timeout_s = DEADLINE_S

        assert await connection.get("/") == ANSWER
        assert names.asked == 1


async def test_an_answer_that_comes_between_two_gets_is_used_once(names: Names, port: int) -> None:
    async with connection_to("slow", port, timeout_s=SHORT_S) as connection:
        await failure_of(connection)
        connection._timeout_s = DEADLINE_S
        for address, asked in [("127.0.0.1", 1), ("127.0.0.1", 2)]:
            names.tell(address)
            await asyncio.sleep(0)

            assert await connection.get("/") == ANSWER
            assert names.asked == asked


async def test_a_source_that_searches_in_vain_asks_a_silent_name_server_once_at_a_time(names: Names) -> None:
    urls = [HttpUrl("slow", 80, "/metrics"), HttpUrl("slow", 80, "/prometheus/metrics")]
    source = ExpositionSource(urls, timeout_s=SHORT_S, clock=lambda: 0.0, serving=HttpUrl("127.0.0.1", 80))
    try:
        for _ in range(3):
            await failure_of(source)
        assert (names.asked, names.open) == (1, 1)
    finally:
        source.close()

    async with asyncio.timeout(DEADLINE_S):
        while names.open:
            await asyncio.sleep(0)


async def test_a_get_that_is_cancelled_leaves_its_look_up_to_the_next(names: Names, port: int) -> None:
    async with connection_to("slow", port) as connection:
        getting = asyncio.create_task(connection.get("/"))
        while not names.asked:
            await asyncio.sleep(0)
        getting.cancel()
        await asyncio.wait([getting])
        names.tell("127.0.0.1")

        assert await connection.get("/") == ANSWER
        assert names.asked == 1


async def test_an_error_that_nobody_waits_for_any_more_is_told_to_the_next(names: Names, port: int) -> None:
    with no_complaint_of_the_loop():
        async with connection_to("slow", port, timeout_s=SHORT_S) as connection:
            await failure_of(connection)
            names.tell()
            connection._timeout_s = DEADLINE_S

            assert await failure_of(connection) is ScrapeFailure.UNREACHABLE

            names.tell("127.0.0.1")
            assert await connection.get("/") == ANSWER
            assert names.asked == 2


async def test_a_host_is_looked_up_again_for_every_connection(names: Names, port: int) -> None:
    async with connection_to("moving", port) as connection:
        names.tell("127.0.0.7")  # Nobody listens there on that port.
        assert await failure_of(connection) is ScrapeFailure.UNREACHABLE
        names.tell("127.0.0.1")
        assert await connection.get("/") == ANSWER
        names.tell("127.0.0.7")
        assert await failure_of(connection) is ScrapeFailure.UNREACHABLE


async def test_of_several_addresses_the_first_that_takes_the_connection_is_asked(names: Names, port: int) -> None:
    names.tell("127.0.0.7", "127.0.0.1", "127.0.0.8")

    async with connection_to("many", port) as connection:
        assert await connection.get("/") == ANSWER


async def test_of_several_addresses_that_all_refuse_one_refusal_is_told(names: Names, port: int) -> None:
    names.tell("127.0.0.7", "127.0.0.8")

    async with connection_to("many", port) as connection:
        with pytest.raises(ScrapeError, match="cannot connect: connection refused"):
            await connection.get("/")


async def test_an_address_is_not_looked_up(names: Names, port: int) -> None:
    async with connection_to("127.0.0.1", port) as connection:
        assert await connection.get("/") == ANSWER

    assert names.asked == 0


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_localhost_is_found_by_the_real_resolver(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def get() -> HttpAnswer:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server, connection_to("localhost", server.sockets[0].getsockname()[1]) as connection:
            return await connection.get("/")

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(get()) == ANSWER
