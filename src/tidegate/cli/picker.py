"""`tidegate picker`: the endpoint picker alone."""

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import uvloop

from tidegate.cli.endpoints import endpoint_source
from tidegate.cli.files import check_replaceable
from tidegate.cli.options import parse_port
from tidegate.cli.stopping import cancel_on_signals
from tidegate.gateway.access_log import AccessLogService
from tidegate.gateway.admin import admin_app
from tidegate.gateway.envoy.endpoints import read_addresses, write_endpoints
from tidegate.gateway.ext_authz import AuthorizationService
from tidegate.gateway.ext_proc import ExternalProcessorService
from tidegate.gateway.serving_grpc import Health, serving_grpc
from tidegate.gateway.serving_http import Address, parse_address, serving_http
from tidegate.picker.director import Director
from tidegate.picker.profile import default_profile
from tidegate.pool.discovery import Discovery, EndpointSource
from tidegate.pool.endpoint import Endpoint
from tidegate.pool.outcomes import Outcomes
from tidegate.pool.scraper import Scraper
from tidegate.pool.table import Pool

log = logging.getLogger(__name__)

app = typer.Typer(add_completion=False, rich_markup_mode=None)

SCRAPE_INTERVAL_S = 0.2
"""A scrape costs a vLLM server 7 to 21 ms of its API process; the pool predicts what happens in between."""
STALE_AFTER_S = 1.0
SCRAPE_TIMEOUT_S = 1.0
OWN_DESTINATIONS = 2
"""For our own Envoy: the choice and one fallback. Other gateways get one: ORIGINAL_DST answers a list with 503."""


@app.command()
def picker(
    urls: Annotated[list[str] | None, typer.Argument(metavar="URL", hidden=True)] = None,
    endpoints: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A YAML file of model servers instead; followed as it changes.")
    ] = None,
    host: Annotated[str, typer.Option(metavar="IP", help="Where to listen; by default on all interfaces.")] = "0.0.0.0",  # noqa: S104 - as the Go endpoint picker does
    grpc_port: Annotated[
        int,
        typer.Option(parser=parse_port, metavar="PORT", help="Port for ext_proc and ext_authz; 0 takes a free one."),
    ] = 9002,
    grpc_health_port: Annotated[
        int, typer.Option(parser=parse_port, metavar="PORT", help="Port for gRPC health checks.")
    ] = 9003,
    metrics_port: Annotated[
        int, typer.Option(parser=parse_port, metavar="PORT", help="Port for /metrics and /debug/pool.")
    ] = 9090,
    grpc_address: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="HOST:PORT or unix:PATH instead of both gRPC ports.", show_default=False),
    ] = "",
    admin_address: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="HOST:PORT or unix:PATH instead of the metrics port; repeatable."),
    ] = None,
    envoy_endpoints: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write Envoy's endpoint file here, and keep it up to date.")
    ] = None,
) -> None:
    """Answer gateways that ask where each request should go.

    Scrapes the model servers, keeps their load in a table, and picks from it. Another gateway asks by ext_proc, the
    Endpoint Picker protocol of the Gateway API Inference Extension. The Envoy of `tidegate up` asks by ext_authz, and
    reports how it went by its access log. URLs and the endpoints file are those of `tidegate up`.

    \b
    Examples:
      tidegate picker http://gpu-1:8000 http://gpu-2:8000
      tidegate picker --endpoints pool.yaml
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    source = endpoint_source(urls or [], endpoints)
    if envoy_endpoints:
        check_replaceable(envoy_endpoints, key="--envoy-endpoints")
    else:  # Under `up`, which has checked the source, this may be a restart while the file is bad.
        source.read()
    on = f"[{host}]" if ":" in host else host
    grpc_places = [grpc_address] if grpc_address else [f"{on}:{grpc_port}", f"{on}:{grpc_health_port}"]
    grpc_addresses = [parse_address(place) for place in grpc_places]
    admin_addresses = [parse_address(place) for place in admin_address or [f"{on}:{metrics_port}"]]
    with contextlib.suppress(asyncio.CancelledError):
        uvloop.run(
            _serve(
                source,
                grpc_addresses=grpc_addresses,
                admin_addresses=admin_addresses,
                envoy_endpoints=envoy_endpoints,
            )
        )


async def _serve(
    source: EndpointSource,
    *,
    grpc_addresses: Sequence[Address],
    admin_addresses: Sequence[Address],
    envoy_endpoints: Path | None,
) -> None:
    """Wire the picker and run it until cancelled."""
    cancel_on_signals()
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
    health = Health()
    synced = asyncio.Event()

    def apply(members: Sequence[Endpoint]) -> None:
        pool.set_endpoints(members)
        scraper.set_endpoints(members)
        if envoy_endpoints:
            write_endpoints(envoy_endpoints, members)
        synced.set()

    async def tell_ready() -> None:
        await synced.wait()
        await health.ready()

    known_addresses = read_addresses(envoy_endpoints) if envoy_endpoints else {}
    discovery = Discovery(source, apply, known_addresses=known_addresses)
    services = [
        AuthorizationService(_director(pool, destinations=OWN_DESTINATIONS, tracked=True), clock).handler(),
        ExternalProcessorService(_director(pool, destinations=1, tracked=False), clock).handler(),
        AccessLogService(outcomes, clock).handler(),
    ]
    await health.started()
    async with (
        serving_grpc(grpc_addresses, services, health) as grpc_bound,
        serving_http(
            admin_app(pool, outcomes, clock, problems=lambda: discovery.problems), admin_addresses
        ) as http_bound,
        asyncio.TaskGroup() as tasks,
    ):
        log.info("picker answers gRPC on %s, HTTP on %s", ", ".join(grpc_bound), ", ".join(http_bound))
        tasks.create_task(discovery.run(), name="discovery")
        tasks.create_task(scraper.run(), name="scraper")
        tasks.create_task(tell_ready(), name="readiness")


def _director(pool: Pool, *, destinations: int, tracked: bool) -> Director:
    """Return a director of the default policy, whose ids are like no other process's."""
    return Director(
        pool,
        default_profile(),
        destinations=destinations,
        tracked=tracked,
        rng=np.random.default_rng(),
        id_prefix=f"{secrets.token_hex(4)}-",
    )
