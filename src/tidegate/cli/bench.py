"""`tidegate bench`: measurements, each with a table that says which way it went."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from tidegate.bench.demo import DemoPlan, run_demo
from tidegate.cli.options import whole
from tidegate.cli.stopping import cancel_on_signals
from tidegate.gateway.envoy.binary import find_envoy
from tidegate.gateway.local import working_directory

INTERRUPTED = 130
"""Exit status of a measurement that was ended early, as shells have it for Ctrl-C."""

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def bench() -> None:
    """Measure: simulated servers, real Envoy, real HTTP."""


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
