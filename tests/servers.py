"""Model servers for tests that say who they are, and whose load the test decides."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

EXPOSITION = """\
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{{model="m",request_type="waiting",version="1"}} {queued}
nv_trt_llm_request_metrics{{model="m",request_type="scheduled",version="1"}} {running}
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="fraction",model="m",version="1"}} {kv}
"""


class ModelServer:
    """Answers every POST with its own name; the load it reports is whatever the test sets."""

    def __init__(self, name: str, *, metrics_path: str = "/metrics") -> None:
        self.name = name
        self._metrics_path = metrics_path
        self.queued = 0
        self.running = 0
        self.kv = 0.0
        self.metrics: bytes | int | None = None
        """Instead of the exposition: this body, or this status."""
        self.metrics_release = asyncio.Event()
        """Scrapes wait for it."""
        self.metrics_release.set()
        self.scraped = 0
        self.scrapes_waiting = 0
        self.status = 200
        self.said: dict[str, object] = {}
        """What its answers say besides its name."""
        self.release = asyncio.Event()
        """Requests wait for it; what is streamed waits with its end."""
        self.release.set()
        self.first_token = asyncio.Event()
        """What is streamed begins with it, long after the response headers."""
        self.first_token.set()
        self.dies = asyncio.Event()
        """What is streamed is cut off by it."""
        self.arrived = 0
        self.answered = 0
        self.headers: list[dict[str, str]] = []
        self.bodies: list[int] = []
        self.url = ""

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    @property
    def address(self) -> str:
        """`host:port`, as the pool names it."""
        return self.url.removeprefix("http://")

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=2**26)
        answers = [web.route("*", "/stream", self._stream), web.route("*", "/{path:.*}", self._answer)]
        app.add_routes([web.get(self._metrics_path, self._metrics), *answers])
        return app

    async def _metrics(self, _: web.Request) -> web.Response:
        self.scraped += 1
        self.scrapes_waiting += 1
        await self.metrics_release.wait()
        self.scrapes_waiting -= 1
        if isinstance(self.metrics, int):
            return web.Response(status=self.metrics)
        text = EXPOSITION.format(queued=self.queued, running=self.running, kv=self.kv).encode()
        return web.Response(body=text if self.metrics is None else self.metrics)

    async def _answer(self, request: web.Request) -> web.Response:
        self.arrived += 1
        self.headers.append(dict(request.headers))
        body = await request.read()
        self.bodies.append(len(body))
        await self.release.wait()
        self.answered += 1
        return web.json_response(
            {"served_by": self.name, "body_sha256": hashlib.sha256(body).hexdigest(), **self.said}, status=self.status
        )

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Send the name as the first line, and a second line at the end."""
        self.arrived += 1
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        await self.first_token.wait()
        await answer.write(f"{self.name}\n".encode())
        end = asyncio.create_task(self.release.wait())
        death = asyncio.create_task(self.dies.wait())
        await asyncio.wait([end, death], return_when=asyncio.FIRST_COMPLETED)
        if self.dies.is_set() and request.transport is not None:
            request.transport.abort()
        for waiting in (end, death):
            waiting.cancel()
        await answer.write(b"end\n")
        return answer


@contextlib.asynccontextmanager
async def model_server(name: str, port: int = 0, *, metrics_path: str = "/metrics") -> AsyncIterator[ModelServer]:
    """Serve one until the end of the block."""
    server = ModelServer(name, metrics_path=metrics_path)
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, backlog=2048)
        await site.start()
        server.url = f"http://127.0.0.1:{listening_port(site)}"
        yield server
    finally:
        server.release.set()
        server.metrics_release.set()
        await runner.cleanup()


def listening_port(site: web.BaseSite) -> int:
    """Return the port the system chose."""
    server: Any = site._server
    return int(server.sockets[0].getsockname()[1])


@contextlib.asynccontextmanager
async def model_servers(count: int) -> AsyncIterator[list[ModelServer]]:
    """Serve several, named a, b, c …"""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(model_server(chr(ord("a") + number))) for number in range(count)]
