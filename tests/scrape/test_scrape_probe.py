"""Where a server publishes its metrics and which engine it is, found by asking it."""

import asyncio
import contextlib
import itertools
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tidegate.protocol.engines import ENGINES, EngineMapping
from tidegate.protocol.errors import ScrapeError, ScrapeFailure
from tidegate.scrape.http import HttpUrl, parse_url
from tidegate.scrape.probe import FAILURES_BEFORE_PROBING, ExpositionSource, metrics_urls

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[[Handler], Awaitable[int]]
NoFilesLeft = Callable[[], contextlib.AbstractContextManager[None]]

FIXTURES = Path(__file__).parents[1] / "fixtures" / "metrics"
VLLM_LOADED = (FIXTURES / "vllm/loaded.txt").read_bytes()
TRITON_LOADED = (FIXTURES / "triton/loaded.txt").read_bytes()
DEADLINE_S = 10.0


class ModelServer:
    """Answers GETs from a table that a test may change: path to status, content type and body; None hangs."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, str, bytes] | None] = {}
        self.asked: list[str] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await self._answer_all(reader, writer)

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.readuntil(b"\r\n\r\n"):
            path = request.split(b" ")[1].decode()
            self.asked.append(path)
            page = self.pages.get(path, (404, "text/html", b"<h1>404</h1>"))
            if page is None:
                await reader.read()
                return
            status, content_type, body = page
            head = f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)


def text(body: bytes) -> tuple[int, str, bytes]:
    return 200, "text/plain; version=0.0.4", body


@contextlib.contextmanager
def source_of(
    *urls: str,
    engine: EngineMapping | None = None,
    timeout_s: float = DEADLINE_S,
    serving: str | None = None,
) -> Iterator[ExpositionSource]:
    source = ExpositionSource(
        [parse_url(url) for url in urls],
        engine=engine,
        timeout_s=timeout_s,
        clock=itertools.count(100.0).__next__,
        serving=parse_url(serving) if serving else None,
    )
    try:
        yield source
    finally:
        source.close()


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """A port that is bound, so that nobody else gets it, and on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def failure_of(source: ExpositionSource) -> ScrapeError:
    with pytest.raises(ScrapeError) as caught:
        await source.read()
    return caught.value


def test_the_serving_port_is_asked_before_tritons() -> None:
    assert [str(url) for url in metrics_urls(HttpUrl("host", 8000, "/v1"))] == [
        "http://host:8000/metrics",
        "http://host:8000/prometheus/metrics",
        "http://host:8002/metrics",
    ]


def test_a_server_on_tritons_port_is_asked_once_for_each_path() -> None:
    assert [str(url) for url in metrics_urls(HttpUrl("::1", 8002))] == [
        "http://[::1]:8002/metrics",
        "http://[::1]:8002/prometheus/metrics",
    ]


async def test_signals_come_with_the_times_before_and_after_the_get(serve: Serve) -> None:
    server = ModelServer()
    server.pages["/metrics"] = text(VLLM_LOADED)
    url = f"http://127.0.0.1:{await serve(server.handle)}/metrics"

    with source_of(url) as source:
        assert (source.url, source.engine) == (None, None)
        scrape = await source.read()

        assert scrape.signals.queued_requests == 12
        assert scrape.signals.running_requests == 4
        assert (scrape.started_at, scrape.signals.observed_at) == (100.0, 101.0)
        assert (str(source.url), source.engine) == (url, ENGINES["vllm"])


async def test_json_at_metrics_is_no_exposition_and_the_next_path_is_tried(serve: Serve) -> None:
    server = ModelServer()
    server.pages["/metrics"] = (200, "application/json", b'[{"iter": 1, "numActiveRequests": 1}]')
    server.pages["/prometheus/metrics"] = text(b"trtllm_num_requests_waiting 7\ntrtllm_kv_cache_utilization 0.5\n")
    base = f"http://127.0.0.1:{await serve(server.handle)}"

    with source_of(f"{base}/metrics", f"{base}/prometheus/metrics") as source:
        for _ in range(2):
            assert (await source.read()).signals.queued_requests == 7
        assert source.engine is ENGINES["trtllm-serve"]

    # What that JSON reports is gone once read, so it must not be asked for again.
    assert server.asked == ["/metrics", "/prometheus/metrics", "/prometheus/metrics"]


async def test_metrics_on_another_port_are_found_when_the_serving_port_has_none(serve: Serve) -> None:
    serving, metrics = ModelServer(), ModelServer()
    metrics.pages["/metrics"] = text(TRITON_LOADED)
    first = f"http://127.0.0.1:{await serve(serving.handle)}/metrics"
    second = f"http://127.0.0.1:{await serve(metrics.handle)}/metrics"

    with source_of(first, second) as source:
        signals = (await source.read()).signals

        assert (signals.queued_requests, signals.kv_utilization) == (4, 0.25)
        assert str(source.url) == second


@pytest.mark.parametrize("answer", [None, "refused"])
async def test_a_server_that_is_down_or_hangs_is_not_looked_for_elsewhere(serve: Serve, answer: str | None) -> None:
    serving, neighbour = ModelServer(), ModelServer()
    serving.pages["/metrics"] = None
    neighbour.pages["/metrics"] = text(VLLM_LOADED)
    with refusing_port() as refusing:
        port = refusing if answer == "refused" else await serve(serving.handle)
        first = f"http://127.0.0.1:{port}/metrics"
        second = f"http://127.0.0.1:{await serve(neighbour.handle)}/metrics"

        with source_of(first, second, timeout_s=0.2) as source:
            error = await failure_of(source)

    assert error.reason is (ScrapeFailure.UNREACHABLE if answer == "refused" else ScrapeFailure.TIMEOUT)
    assert neighbour.asked == []


async def test_when_nothing_works_the_error_tells_all_that_was_tried_and_why(serve: Serve) -> None:
    server = ModelServer()
    server.pages["/metrics"] = (200, "application/json", b"[]")
    server.pages["/other"] = text(b"process_cpu_seconds_total 1\n")
    base = f"http://127.0.0.1:{await serve(server.handle)}"
    with refusing_port() as refusing:
        beside = f"http://127.0.0.1:{refusing}/metrics"
        with source_of(f"{base}/metrics", f"{base}/other", f"{base}/none", beside) as source:
            error = await failure_of(source)

    assert str(error) == (
        f"{base}/metrics: no exposition but 'application/json'; {base}/other: no metrics of any engine known; "
        f"{base}/none: status 404 instead of 200; {beside}: cannot connect: connection refused"
    )
    assert not error.unreachable


async def test_a_search_in_vain_leaves_no_connection_open(serve: Serve) -> None:
    server, closed = ModelServer(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.handle(reader, writer)
        closed.set()

    with source_of(f"http://127.0.0.1:{await serve(handle)}/metrics") as source:
        await failure_of(source)
        async with asyncio.timeout(DEADLINE_S):
            await closed.wait()


async def test_one_timeout_covers_the_whole_search(serve: Serve) -> None:
    server, hanging = ModelServer(), ModelServer()
    hanging.pages["/metrics"] = None
    first = f"http://127.0.0.1:{await serve(server.handle)}/metrics"
    second = f"http://127.0.0.1:{await serve(hanging.handle)}/metrics"

    with source_of(first, *[second + "?" * n for n in range(50)], timeout_s=0.2) as source:
        hanging.pages.update({f"/metrics{'?' * n}": None for n in range(50)})
        async with asyncio.timeout(DEADLINE_S / 2):  # 50 hanging URLs of 0.2 s each would take as long as DEADLINE_S
            error = await failure_of(source)

    assert len(hanging.asked) <= 2
    assert error.reason is ScrapeFailure.BAD_STATUS
    assert "no whole answer within" in str(error)


async def test_a_dead_metrics_port_beside_a_live_server_does_not_make_it_unreachable(serve: Serve) -> None:
    server = ModelServer()
    serving = f"http://127.0.0.1:{await serve(server.handle)}/"
    with refusing_port() as refusing, source_of(f"http://127.0.0.1:{refusing}/metrics", serving=serving) as source:
        error = await failure_of(source)

    assert error.reason is ScrapeFailure.NO_METRICS


@pytest.mark.parametrize("server_died", [True, False])
async def test_when_the_metrics_port_dies_the_serving_port_tells_whether_the_server_did(server_died: bool) -> None:
    metrics = ModelServer()
    metrics.pages["/metrics"] = text(TRITON_LOADED)
    serving_port = await asyncio.start_server(ModelServer().handle, "127.0.0.1", 0)
    metrics_port = await asyncio.start_server(metrics.handle, "127.0.0.1", 0)
    urls = [f"http://127.0.0.1:{port.sockets[0].getsockname()[1]}/metrics" for port in (serving_port, metrics_port)]

    async with serving_port, metrics_port:
        with source_of(*urls) as source:
            await source.read()
            metrics_port.close()
            if server_died:
                serving_port.close()
            source.close()  # The listening ports are gone; a dead process loses its connections as well.

            assert (await failure_of(source)).unreachable is server_died


async def test_a_url_that_worked_is_doubted_only_after_several_failures(serve: Serve) -> None:
    server = ModelServer()
    server.pages["/prometheus/metrics"] = text(b"trtllm_num_requests_waiting 7\ntrtllm_kv_cache_utilization 0.5\n")
    base = f"http://127.0.0.1:{await serve(server.handle)}"

    with source_of(f"{base}/metrics", f"{base}/prometheus/metrics") as source:
        await source.read()
        # The server is replaced by one of another kind.
        server.pages = {"/metrics": text(VLLM_LOADED)}
        for _ in range(FAILURES_BEFORE_PROBING):
            assert (await failure_of(source)).reason is ScrapeFailure.BAD_STATUS

        assert (await source.read()).signals.queued_requests == 12
        assert source.engine is ENGINES["vllm"]


async def test_having_no_file_left_is_held_neither_against_the_server_nor_against_its_url(
    serve: Serve, no_files_left: NoFilesLeft
) -> None:
    server = ModelServer()
    server.pages["/prometheus/metrics"] = text(VLLM_LOADED)
    base = f"http://127.0.0.1:{await serve(server.handle)}"

    with source_of(f"{base}/metrics", f"{base}/prometheus/metrics") as source:
        with no_files_left():
            error = await failure_of(source)
            assert error.reason is ScrapeFailure.EXHAUSTED
            assert "/prometheus" not in str(error)
        await source.read()
        source.close()
        with no_files_left():
            for _ in range(FAILURES_BEFORE_PROBING + 1):
                assert (await failure_of(source)).reason is ScrapeFailure.EXHAUSTED

        assert str(source.url) == f"{base}/prometheus/metrics"
        await source.read()


async def test_failures_that_are_not_in_a_row_do_not_add_up(serve: Serve) -> None:
    server = ModelServer()
    url = f"http://127.0.0.1:{await serve(server.handle)}/metrics"

    with source_of(url) as source:
        for _ in range(FAILURES_BEFORE_PROBING + 1):
            server.pages["/metrics"] = text(VLLM_LOADED)
            await source.read()
            server.pages["/metrics"] = (500, "text/plain", b"")
            assert (await failure_of(source)).reason is ScrapeFailure.BAD_STATUS
            assert source.url is not None


async def test_a_backend_that_loads_later_is_detected_then(serve: Serve) -> None:
    server = ModelServer()
    server.pages["/metrics"] = text(re.sub(rb"(?m)^.*nv_trt_llm_.*\n", b"", TRITON_LOADED))
    url = f"http://127.0.0.1:{await serve(server.handle)}/metrics"

    with source_of(url) as source:
        assert (await source.read()).signals.kv_utilization is None
        assert source.engine is ENGINES["triton"]
        server.pages["/metrics"] = text(TRITON_LOADED)

        assert (await source.read()).signals.kv_utilization == 0.25
        assert source.engine is ENGINES["triton-tensorrt-llm"]


async def test_a_given_engine_is_never_replaced_by_what_looks_likelier(serve: Serve) -> None:
    server = ModelServer()
    server.pages["/metrics"] = text(TRITON_LOADED)
    url = f"http://127.0.0.1:{await serve(server.handle)}/metrics"

    with source_of(url, engine=ENGINES["triton"]) as source:
        assert (await source.read()).signals.kv_utilization is None
        assert source.engine is ENGINES["triton"]
    with source_of(url, engine=ENGINES["vllm"]) as source:
        assert "no metrics of engine vllm" in str(await failure_of(source))


async def test_a_malformed_exposition_is_an_error_that_names_the_url(serve: Serve) -> None:
    server = ModelServer()
    server.pages["/metrics"] = text(b"vllm:num_requests_waiting x\n")
    url = f"http://127.0.0.1:{await serve(server.handle)}/metrics"

    with source_of(url) as source:
        error = await failure_of(source)

    assert str(error).startswith(f"{url}: malformed exposition")
    assert error.reason is ScrapeFailure.NOT_AN_EXPOSITION


async def test_the_wait_ends_when_the_server_closes_the_connection(serve: Serve) -> None:
    server, die = ModelServer(), asyncio.Event()
    server.pages["/metrics"] = text(VLLM_LOADED)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering = asyncio.create_task(server.handle(reader, writer))
        await die.wait()
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)

    with source_of(f"http://127.0.0.1:{await serve(handle)}/metrics") as source:
        await source.read()
        waiting = asyncio.create_task(source.wait_closed())
        await asyncio.sleep(0)
        assert not waiting.done()
        die.set()
        async with asyncio.timeout(DEADLINE_S):
            await waiting
