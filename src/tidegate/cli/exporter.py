"""`tidegate exporter`: a server's metrics, with what they lack."""

import asyncio
import contextlib
import logging
import time
from typing import Annotated

import typer
import uvloop

from tidegate.cli.options import parse_port
from tidegate.cli.stopping import cancel_on_signals
from tidegate.gateway.serving_http import Address, serving_http
from tidegate.protocol.engines import ENGINES, EngineMapping, engine_named
from tidegate.protocol.errors import ConfigError
from tidegate.publish.exporter.app import exporter_app
from tidegate.publish.exporter.fetches import Fetches
from tidegate.publish.exporter.iterations import IterationStatistics
from tidegate.scrape.http import parse_url
from tidegate.scrape.probe import ExpositionSource, places_before_json

TARGETS = ("vllm", "sglang", "trtllm-serve", "triton-tensorrt-llm")
"""Engines that have a name for each signal which the protocol requires."""
TIMEOUT_S = 5.0
"""trtllm-serve's JSON takes 2 s while there is none."""
AUTO = "auto"

log = logging.getLogger(__name__)

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def exporter(
    scrape: Annotated[
        str,
        typer.Option(
            metavar="URL", help="The server, http://HOST:PORT, or exactly where its metrics are, with a path."
        ),
    ],
    engine: Annotated[
        str, typer.Option(metavar="ENGINE", help="The kind of server, where it is not to be detected.")
    ] = AUTO,
    published_as: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="ENGINE",
            help=f"In whose names to publish the load, and only that. One of: {', '.join(TARGETS)}.",
            show_default="the server's own, everything",
        ),
    ] = "",
    port: Annotated[
        int, typer.Option(parser=parse_port, metavar="PORT", help="Port to listen on; 0 takes a free one.")
    ] = 9400,
    host: Annotated[str, typer.Option(metavar="IP", help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
) -> None:
    """Publish a server's metrics with the composite series they lack.

    Runs beside any model server. /metrics is what the server says, byte for byte, and in addition, where only their
    ingredients are there, the requests that wait and the share of the KV cache in use. With --as, the same load in the
    names of another engine, for gateways that know only those. It also reads the JSON statistics of trtllm-serve.

    \b
    Examples:
      tidegate exporter --scrape http://localhost:8002/metrics
      tidegate exporter --scrape http://localhost:8000 --as vllm
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    statistics = IterationStatistics()
    source = ExpositionSource(
        places_before_json(parse_url(scrape)),
        engine=None if engine == AUTO else engine_named(engine),
        timeout_s=TIMEOUT_S,
        clock=time.monotonic,
        parse_statistics=statistics.parse,
    )
    with contextlib.suppress(asyncio.CancelledError):
        fetches = Fetches(source, time.monotonic, forget=statistics.forget)
        uvloop.run(_serve(fetches, _target(published_as), Address(host=host, port=port), scrape))


def _target(name: str) -> EngineMapping | None:
    if not name:
        return None
    if name in TARGETS:
        return engine_named(name)
    known = name in ENGINES
    problem = f"engine {name} has no name for some of the signals" if known else f"no engine called {name[:100]!r}"
    raise ConfigError(problem, key="--as", fix=f"Use one of: {', '.join(TARGETS)}.")


async def _serve(fetches: Fetches, target: EngineMapping | None, address: Address, url: str) -> None:
    cancel_on_signals()
    application = exporter_app(fetches, target, clock=time.monotonic, wall_clock=time.time)
    async with serving_http(application, [address]) as [bound], asyncio.TaskGroup() as tasks:
        names = f" in the names of {target.name}" if target else ""
        print(f"tidegate exporter: http://{bound}/metrics publishes {url}{names}", flush=True)
        tasks.create_task(fetches.run(), name="fetches")
