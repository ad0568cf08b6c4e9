"""`tidegate bench`: measurements, each with a table that says which way it went."""

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
import typer
import uvloop
from rich.console import Console

from tidegate.bench.demo import DemoPlan, run_demo
from tidegate.bench.scrape import ScrapeFigures, ScrapePlan, measure_scraping
from tidegate.bench.scrape_report import render_figures
from tidegate.cli.bench_load import INTERRUPTED, load
from tidegate.cli.files import check_writable, write_file
from tidegate.cli.options import parse_amount, whole
from tidegate.cli.stopping import cancel_on_signals
from tidegate.gateway.envoy.binary import find_envoy
from tidegate.gateway.local import working_directory
from tidegate.protocol.errors import ConfigError

MAX_ENDPOINTS = 5000
MAX_RATE_HZ = 100.0

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)
app.command()(load)


@app.callback()
def bench() -> None:
    """Measure: your servers or simulated ones, real Envoy, real HTTP."""


@app.command()
def demo(
    seed: Annotated[
        int, typer.Option(parser=whole(0), metavar="N", help="Decides arrivals, lengths and the order of runs.")
    ] = 1,
) -> None:
    """Compare round robin and tidegate's pick, live.

    Four simulated TensorRT-LLM servers near their limit get the same bursty workload twice, live, through the same
    Envoy, within half a minute. Prints what a server published, and the times to first token of both runs, whichever
    way they compare.
    """
    with working_directory() as directory:
        try:
            uvloop.run(_demo(DemoPlan(seed=seed), directory))
        except asyncio.CancelledError:
            raise typer.Exit(INTERRUPTED) from None


async def _demo(plan: DemoPlan, directory: Path) -> None:
    cancel_on_signals()
    await run_demo(plan, envoy=find_envoy(), directory=directory, console=Console())


@app.command()
def scrape(
    endpoints: Annotated[
        int, typer.Option(parser=whole(1, MAX_ENDPOINTS), metavar="N", help="How many endpoints are scraped at a time.")
    ] = 1000,
    rate: Annotated[
        float, typer.Option(parser=parse_amount, metavar="HZ", help="Scrapes of each endpoint per second.")
    ] = 2.0,
    seconds: Annotated[
        float,
        typer.Option(parser=parse_amount, metavar="S", help="How long they are scraped, with each of two expositions."),
    ] = 10.0,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all figures here, too; a file that is there is replaced.")
    ] = None,
) -> None:
    """Measure what it costs to know how busy the servers are.

    CPU per parse and per scrape of real expositions, beside prometheus_client's parser; a fleet of endpoints scraped as
    the picker does it, and how late its event loop comes meanwhile; what an exporter adds to a scrape. The servers are
    a process of its own that answers on loopback with bytes rendered beforehand. Takes about a minute.
    """
    if not 0 < rate <= MAX_RATE_HZ:
        raise ConfigError(f"{rate:g} is out of range", fix=f"Use more than 0, {MAX_RATE_HZ:g} at most.", key="--rate")
    if not seconds:
        raise ConfigError("nothing is measured in 0 s", fix="Use 1 or more.", key="--seconds")
    if json is not None:
        check_writable(json, key="--json")
    plan = ScrapePlan(endpoints=endpoints, rate_hz=rate, seconds=seconds)
    console = Console()
    with working_directory() as directory:
        try:
            figures = uvloop.run(_scrape(plan, directory, console))
        except asyncio.CancelledError:
            raise typer.Exit(INTERRUPTED) from None
    for part in render_figures(figures):
        console.print()
        console.print(part, highlight=False, soft_wrap=isinstance(part, str) and not console.is_terminal)
    if json is not None:
        write_file(json, msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n", key="--json")


async def _scrape(plan: ScrapePlan, directory: Path, console: Console) -> ScrapeFigures:
    cancel_on_signals()
    return await measure_scraping(plan, directory=directory, say=console.print)
