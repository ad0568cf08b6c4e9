"""`tidegate picker`: the endpoint picker alone."""

import asyncio
import contextlib
import logging
import random
import secrets
import signal
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated

import grpc.aio
import numpy as np
import typer
import uvloop
from aiohttp import web

from tidegate.cli.endpoints import endpoint_source
from tidegate.gateway.access_log import AccessLogService
from tidegate.gateway.admin import admin_app
from tidegate.gateway.envoy.endpoints import write_endpoints
from tidegate.gateway.ext_authz import AuthorizationService
from tidegate.picker.director import Director
from tidegate.picker.profile import default_profile
from tidegate.pool.discovery import Discovery, EndpointSource
from tidegate.pool.endpoint import Endpoint
from tidegate.pool.outcomes import Outcomes
from tidegate.pool.scraper import Scraper
from tidegate.pool.table import Pool
from tidegate.protocol.errors import ConfigError

app = typer.Typer(add_completion=False)

SCRAPE_INTERVAL_S = 0.2
"""A scrape costs a vLLM server 7 to 21 ms of its API process; the pool predicts what happens in between."""
STALE_AFTER_S = 1.0
SCRAPE_TIMEOUT_S = 1.0
DESTINATIONS = 2
"""The choice and one fallback, which Envoy tries when the choice does not answer."""
MAX_MESSAGE_BYTES = 16 * 2**20
"""grpc's 4 MiB would make a larger message fail, and its request go unpicked."""
DRAIN_S = 0.5


@app.command()
def picker(
    urls: Annotated[
        list[str] | None, typer.Argument(metavar="[URL]...", help="Model servers: http://host:port[,metrics=URL].")
    ] = None,
    endpoints: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file of model servers instead; followed as it changes.")
    ] = None,
    grpc_address: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where Envoy asks: HOST:PORT or unix:PATH.")
    ] = "127.0.0.1:9002",
    admin_address: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="Where /debug/pool and /metrics are: HOST:PORT or unix:PATH; repeatable."),
    ] = None,
    envoy_endpoints: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write Envoy's endpoint file here, and keep it up to date.")
    ] = None,
) -> None:
    """Answer an Envoy that asks where each request should go.

    `tidegate up` starts this beside an Envoy of its own. It scrapes the model servers, keeps their load in a table,
    answers Envoy's ext_authz Check calls and reads its access log.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    source = endpoint_source(urls or [], endpoints)
    source.read()  # a bad file is fatal now; later it only keeps the endpoints as they are
    with contextlib.suppress(asyncio.CancelledError):
        uvloop.run(
            _serve(
                source,
                grpc_address=grpc_address,
                admin_addresses=admin_address or ["127.0.0.1:9090"],
                envoy_endpoints=envoy_endpoints,
            )
        )


async def _serve(
    source: EndpointSource,
    *,
    grpc_address: str,
    admin_addresses: Sequence[str],
    envoy_endpoints: Path | None,
) -> None:
    clock = time.monotonic
    pool = Pool(stale_after_s=STALE_AFTER_S)
    outcomes = Outcomes(pool)
    scraper = Scraper(
        pool,
        interval_s=SCRAPE_INTERVAL_S,
        timeout_s=SCRAPE_TIMEOUT_S,
        clock=clock,
        rng=random.Random(),  # noqa: S311
    )
    director = Director(
        pool,
        default_profile(),
        destinations=DESTINATIONS,
        tracked=True,
        rng=np.random.default_rng(),
        id_prefix=f"{secrets.token_hex(4)}-",
    )

    def apply(members: Sequence[Endpoint]) -> None:
        pool.set_endpoints(members)
        scraper.set_endpoints(members)
        if envoy_endpoints:
            write_endpoints(envoy_endpoints, members)

    discovery = Discovery(source, apply)
    loop = asyncio.get_running_loop()
    this_task = asyncio.current_task()
    if this_task is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, this_task.cancel)
    async with (
        _serving_grpc(grpc_address, AuthorizationService(director, clock), AccessLogService(outcomes, clock)),
        _serving_http(admin_app(pool, outcomes, clock, problems=lambda: discovery.problems), admin_addresses),
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(discovery.run(), name="discovery")
        tasks.create_task(scraper.run(), name="scraper")


@contextlib.asynccontextmanager
async def _serving_grpc(
    address: str, authorization: AuthorizationService, access_log: AccessLogService
) -> AsyncIterator[None]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)])
    server.add_generic_rpc_handlers([authorization.handler(), access_log.handler()])
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(f"cannot listen on {address}", fix="Is the port in use? Give another.") from error
    if not bound:
        raise ConfigError(f"cannot listen on {address}", fix="Is the port in use? Give another.")
    await server.start()
    try:
        yield
    finally:
        await server.stop(DRAIN_S)


@contextlib.asynccontextmanager
async def _serving_http(application: web.Application, addresses: Sequence[str]) -> AsyncIterator[None]:
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=DRAIN_S)
    await runner.setup()
    try:
        for address in addresses:
            try:
                await _http_site(runner, address).start()
            except OSError as error:
                raise ConfigError(f"cannot listen on {address}: {error.strerror}", fix="Give another port.") from error
        yield
    finally:
        await runner.cleanup()


def _http_site(runner: web.AppRunner, address: str) -> web.BaseSite:
    if address.startswith("unix:"):
        return web.UnixSite(runner, address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    return web.TCPSite(runner, host.strip("[]"), int(port))
