"""The HTTP API on a socket of its own, in front of any Generator, inside the test's event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from processes import until
from tidegate.cli.sim import build
from tidegate.frontend.serving import bind, url_of
from tidegate.simulator.cost import CostModel
from tidegate.simulator.limits import Limits

QUICK = CostModel(iteration_base_s=0.002, between_steps_s=0.0)
MODEL = "tensorrt_llm"


@contextlib.asynccontextmanager
async def listening(app: ASGIApp) -> AsyncIterator[str]:
    """Serve `app` until the end of the block; yields its URL."""
    config = uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()

    def connect() -> asyncio.Protocol:
        return HttpToolsProtocol(config, state, app_state={}, _loop=loop)

    with bind("127.0.0.1", 0) as listener:
        # Not uvicorn's own Server: it takes 0.3 s to end, and the signals of the whole process.
        server = await loop.create_server(connect, sock=listener)
        try:
            yield url_of(listener)
        finally:
            server.close()
            for connection in list(state.connections):
                connection.shutdown()

            async def is_over() -> bool:
                return not state.connections and not state.tasks

            await until(is_over)


@contextlib.asynccontextmanager
async def simulated_server(
    limits: Limits | None = None, cost: CostModel = QUICK, *, engine: str = "triton-tensorrt-llm"
) -> AsyncIterator[str]:
    """Serve a simulated model server until the end of the block; yields its URL."""
    generator, app = build(limits or Limits(), cost, engine=engine, model=MODEL, name="sim-1")
    driver = asyncio.create_task(generator.run())
    try:
        async with listening(app) as url:
            yield url
    finally:
        driver.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await driver
