"""A GET over one kept connection, against servers of every kind: good, slow, broken, hostile, killed."""

import asyncio
import contextlib
import errno
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop
from aiohttp import web

from tidegate.protocol.errors import ScrapeError, ScrapeFailure
from tidegate.scrape.answer import HttpAnswer
from tidegate.scrape.http import HttpConnection

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[[Handler], Awaitable[int]]
NoFilesLeft = Callable[[], contextlib.AbstractContextManager[None]]

HELLO = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
ANSWER = HttpAnswer(200, "text/plain", b"hello")
DEADLINE_S = 10.0


@contextlib.asynccontextmanager
async def connection_to(
    port: int, *, timeout_s: float = DEADLINE_S, max_body_bytes: int = 2**20
) -> AsyncIterator[HttpConnection]:
    connection = HttpConnection("127.0.0.1", port, timeout_s=timeout_s, max_body_bytes=max_body_bytes)
    try:
        yield connection
    finally:
        connection.close()


def answering(*pieces: bytes, then_close: bool = False) -> Handler:
    """Answer every request of a connection with these pieces, each sent on its own."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if then_close:
                return

    return handle


async def failure_of(port: int, *, timeout_s: float = DEADLINE_S, max_body_bytes: int = 2**20) -> ScrapeError:
    async with connection_to(port, timeout_s=timeout_s, max_body_bytes=max_body_bytes) as connection:
        with pytest.raises(ScrapeError) as caught:
            await connection.get("/metrics")
    assert str(caught.value).startswith(f"http://127.0.0.1:{port}/metrics: ")
    return caught.value


async def test_the_request_is_plain_and_names_its_host(serve: Serve) -> None:
    requests: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(HELLO)

    port = await serve(handle)
    async with connection_to(port) as connection:
        assert await connection.get("/metrics?a=b") == ANSWER

    lines = requests[0].decode().split("\r\n")
    assert lines[0] == "GET /metrics?a=b HTTP/1.1"
    assert f"Host: 127.0.0.1:{port}" in lines
    assert "Accept-Encoding: identity" in lines


@pytest.mark.parametrize(
    "pieces",
    [
        [HELLO],
        [bytes([byte]) for byte in HELLO],
        [
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n2\r\nh",
            b"e\r\n3\r",
            b"\nllo\r\n0\r\n\r\n",
        ],
    ],
    ids=["at once", "byte by byte", "chunked"],
)
async def test_one_connection_serves_all_gets(serve: Serve, pieces: list[bytes]) -> None:
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answering(*pieces)(reader, writer)

    async with connection_to(await serve(handle)) as connection:
        for _ in range(3):
            assert await connection.get("/metrics") == ANSWER

    assert connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nhello",
        HELLO + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong",
    ],
    ids=["close", "until the end", "more than asked for"],
)
async def test_a_connection_that_cannot_be_kept_is_replaced(serve: Serve, answer: bytes) -> None:
    async with connection_to(await serve(answering(answer, then_close=True))) as connection:
        for _ in range(3):
            assert await connection.get("/metrics") == ANSWER


async def test_bytes_that_come_unasked_between_two_gets_are_not_taken_for_an_answer(serve: Serve) -> None:
    served = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await reader.readuntil(b"\r\n\r\n")
        served += 1
        writer.write(HELLO)
        if served == 1:
            await asyncio.sleep(0.01)
            writer.write(HELLO.replace(b"hello", b"wrong"))
            await reader.read()

    async with connection_to(await serve(handle)) as connection:
        assert await connection.get("/metrics") == ANSWER
        async with asyncio.timeout(DEADLINE_S):
            await connection.wait_closed()
        assert await connection.get("/metrics") == ANSWER


@pytest.mark.parametrize("status", [404, 500, 503])
async def test_any_status_is_an_answer(serve: Serve, status: int) -> None:
    async with connection_to(
        await serve(answering(b"HTTP/1.1 %d X\r\ncontent-length: 1\r\n\r\nx" % status))
    ) as connection:
        assert await connection.get("/metrics") == HttpAnswer(status, "", b"x")


async def test_a_server_that_closed_the_idle_connection_is_asked_again(serve: Serve) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HELLO)
        await reader.readuntil(b"\r\n\r\n")  # and closes without a word, as a server that restarts does

    async with connection_to(await serve(handle)) as connection:
        for _ in range(3):
            assert await connection.get("/metrics") == ANSWER


async def test_a_fresh_connection_that_closes_is_not_asked_again(serve: Serve) -> None:
    connections = 0

    async def handle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")

    error = await failure_of(await serve(handle))

    assert error.reason is ScrapeFailure.CLOSED
    assert connections == 1


async def test_a_kept_connection_that_dies_in_the_middle_of_an_answer_is_not_asked_again(serve: Serve) -> None:
    requests = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        for answer in (HELLO, HELLO[:-1]):
            await reader.readuntil(b"\r\n\r\n")
            requests += 1
            writer.write(answer)

    async with connection_to(await serve(handle)) as connection:
        assert await connection.get("/metrics") == ANSWER
        with pytest.raises(ScrapeError, match="in the middle of the answer"):
            await connection.get("/metrics")

    assert requests == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ],
)
async def test_an_answer_cut_short_is_an_error(serve: Serve, answer: bytes) -> None:
    error = await failure_of(await serve(answering(answer, then_close=True)))

    assert error.reason is ScrapeFailure.CLOSED


async def test_a_reset_in_the_middle_of_a_body_is_never_its_end(serve: Serve) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhel")
        await writer.drain()
        await asyncio.sleep(0.01)
        # With no lingering the rest of the request, unread, makes the kernel send a reset instead of an end.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()

    error = await failure_of(await serve(handle))

    assert error.reason is ScrapeFailure.CLOSED


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00", b"220 smtp.example ESMTP\r\n", b"\0" * 1000])
async def test_garbage_is_refused_without_waiting_for_more(serve: Serve, garbage: bytes) -> None:
    error = await failure_of(await serve(answering(garbage)))

    assert error.reason is ScrapeFailure.NOT_HTTP


async def test_a_refused_connection_makes_the_server_unreachable() -> None:
    with socket.socket() as bound:  # Bound but not listening: nobody else gets the port, and nobody answers on it.
        bound.bind(("127.0.0.1", 0))
        error = await failure_of(bound.getsockname()[1])

    assert error.unreachable
    assert "connection refused" in str(error)


async def test_an_unknown_host_is_unreachable() -> None:
    connection = HttpConnection("no-such-host.invalid", 80, timeout_s=DEADLINE_S)

    with pytest.raises(ScrapeError, match="no-such-host") as caught:
        await connection.get("/metrics")
    assert caught.value.unreachable


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_having_no_file_left_says_nothing_of_the_server(
    new_loop: Callable[[], asyncio.AbstractEventLoop], host: str, no_files_left: NoFilesLeft
) -> None:
    async def get_in_vain(port: int) -> ScrapeError:
        connection = HttpConnection(host, port, timeout_s=DEADLINE_S)
        with no_files_left(), pytest.raises(ScrapeError, match="too many open files") as caught:
            await connection.get("/metrics")
        return caught.value

    with socket.create_server(("127.0.0.1", 0)) as listening, asyncio.Runner(loop_factory=new_loop) as runner:
        error = runner.run(get_in_vain(listening.getsockname()[1]))

    assert error.reason is ScrapeFailure.EXHAUSTED
    assert not error.unreachable


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENFILE, ScrapeFailure.EXHAUSTED),
        (errno.ENOBUFS, ScrapeFailure.EXHAUSTED),
        (errno.ENOMEM, ScrapeFailure.EXHAUSTED),
        (errno.EADDRNOTAVAIL, ScrapeFailure.EXHAUSTED),
        (errno.EHOSTUNREACH, ScrapeFailure.UNREACHABLE),
        (errno.ETIMEDOUT, ScrapeFailure.UNREACHABLE),
    ],
    ids=lambda value: errno.errorcode.get(value, ""),
)
async def test_only_what_the_server_lacks_makes_it_unreachable(
    number: int, reason: ScrapeFailure, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError(number, "")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", fail)

    assert (await failure_of(80)).reason is reason


async def test_a_server_that_accepts_and_never_answers_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # The kernel accepts; no process ever reads.
        error = await failure_of(listening.getsockname()[1], timeout_s=0.1)

    assert error.reason is ScrapeFailure.TIMEOUT
    assert "within 0.1 s" in str(error)


async def test_an_answer_that_drips_does_not_extend_the_timeout(serve: Serve) -> None:
    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    error = await failure_of(await serve(handle), timeout_s=0.2)

    assert error.reason is ScrapeFailure.TIMEOUT


@pytest.mark.parametrize(
    ("head", "prefix"),
    [(b"content-length: 20971520\r\n", b""), (b"transfer-encoding: chunked\r\n", b"1400000\r\n"), (b"", b"")],
    ids=["length", "chunked", "until the end"],
)
async def test_a_body_of_20_mb_is_cut_off_at_the_limit(serve: Serve, head: bytes, prefix: bytes) -> None:
    cut_off = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + prefix)
        try:
            for _ in range(320):
                writer.write(b"x" * 65_536)
                await writer.drain()
        except ConnectionError:
            cut_off.set()
            raise

    error = await failure_of(await serve(handle), max_body_bytes=100_000)

    assert error.reason is ScrapeFailure.TOO_LARGE
    async with asyncio.timeout(DEADLINE_S):
        await cut_off.wait()


async def test_a_body_is_limited_to_what_is_scanned_in_some_tens_of_milliseconds(serve: Serve) -> None:
    port = await serve(answering(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (2 * 2**20 + 1)))
    connection = HttpConnection("127.0.0.1", port, timeout_s=DEADLINE_S)

    with pytest.raises(ScrapeError, match="the body exceeds 2097152 bytes") as caught:
        await connection.get("/metrics")
    assert caught.value.reason is ScrapeFailure.TOO_LARGE


async def test_after_a_failure_the_next_get_begins_anew(serve: Serve) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.readuntil(b"\r\n\r\n"):
            writer.write(HELLO if b"/good" in request else b"garbage")

    async with connection_to(await serve(handle)) as connection:
        for _ in range(2):
            assert await connection.get("/good") == ANSWER
            with pytest.raises(ScrapeError):
                await connection.get("/bad")


async def test_cancelling_a_get_closes_its_connection(serve: Serve) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        closed.set()

    async with connection_to(await serve(handle)) as connection, asyncio.timeout(DEADLINE_S):
        getting = asyncio.create_task(connection.get("/metrics"))
        await asked.wait()
        getting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await getting
        await closed.wait()


async def test_closing_ends_the_kept_connection_and_the_wait_for_it(serve: Serve) -> None:
    async with connection_to(await serve(answering(HELLO))) as connection, asyncio.timeout(DEADLINE_S):
        await connection.get("/metrics")
        waiting = asyncio.create_task(connection.wait_closed())
        await asyncio.sleep(0)
        connection.close()
        await waiting


async def test_a_connection_closed_before_anyone_waits_is_noticed_all_the_same(serve: Serve) -> None:
    async with connection_to(await serve(answering(HELLO, then_close=True))) as connection, asyncio.timeout(DEADLINE_S):
        await connection.get("/metrics")
        await connection.wait_closed()
        await connection.wait_closed()


async def test_there_is_nothing_to_wait_for_where_no_connection_was_kept(serve: Serve) -> None:
    answer = b"HTTP/1.0 200 OK\r\n\r\nhello"
    async with connection_to(await serve(answering(answer, then_close=True))) as connection:
        await connection.get("/metrics")

        # Returning at once would make the scraper ask such a server without a pause.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.wait_closed()


async def test_an_ipv6_server_is_asked_by_its_address() -> None:
    hosts: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hosts.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(HELLO)
        writer.close()

    try:
        server = await asyncio.start_server(handle, "::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with server:
        port = server.sockets[0].getsockname()[1]
        connection = HttpConnection("::1", port, timeout_s=DEADLINE_S)
        assert await connection.get("/") == ANSWER
        connection.close()
    assert f"Host: [::1]:{port}".encode() in hosts[0]


async def test_an_aiohttp_server_is_read_in_every_framing() -> None:
    async def sized(_: web.Request) -> web.Response:
        return web.Response(text="x" * 100_000)

    async def chunked(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b"x" * 1000)
        return response

    app = web.Application()
    app.add_routes([web.get("/sized", sized), web.get("/chunked", chunked)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with connection_to(port) as connection:
            for path in ("/sized", "/chunked", "/sized"):
                assert (await connection.get(path)).body == b"x" * 100_000
            assert (await connection.get("/none")).status == 404
    finally:
        await runner.cleanup()


UVICORN = """
import socket, uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
app = Starlette(routes=[Route("/metrics", lambda request: PlainTextResponse("hello"))])
uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])
"""


async def scrape_and_kill_a_uvicorn() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", UVICORN, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            port = int(await process.stdout.readline())
            async with connection_to(port) as connection:
                answer = await connection.get("/metrics")
                assert (answer.status, answer.body) == (200, b"hello")
                waiting = asyncio.create_task(connection.wait_closed())
                await asyncio.sleep(0)
                assert not waiting.done()
                process.kill()
                await waiting
                await process.wait()
                with pytest.raises(ScrapeError) as caught:
                    await connection.get("/metrics")
                assert caught.value.unreachable
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_server_killed_between_two_scrapes_is_noticed_at_once(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scrape_and_kill_a_uvicorn())
