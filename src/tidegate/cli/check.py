"""`tidegate check`: whether model servers keep the Model Server Protocol."""

import asyncio
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from tidegate.cli.check_table import render_report, render_summary
from tidegate.cli.stopping import cancel_on_signals
from tidegate.protocol.engines import ENGINES, engine_named
from tidegate.protocol.errors import ConfigError
from tidegate.publish.check.checking import CheckOptions, check_servers
from tidegate.publish.check.report import ServerReport, as_document, exit_status

INTERRUPTED = 130
"""Exit status of a check that was ended early, as shells have it for Ctrl-C."""
MAX_WATCH_S = 3600.0
MAX_TIMEOUT_S = 600.0

_UNITS_S = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0}

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def parse_duration(value: object) -> float:
    """Parse ``10s``, ``500ms``, ``2m``, or a number of seconds; in seconds, > 0."""
    text = str(value)
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|)", text, re.ASCII)
    seconds = float(parts[1]) * _UNITS_S[parts[2]] if parts else 0.0
    if seconds <= 0:
        raise typer.BadParameter(f"{text!r} is not a time such as 10s, 500ms or 2m.")
    return seconds


@app.command(no_args_is_help=True)
def check(
    urls: Annotated[list[str] | None, typer.Argument(metavar="URL", hidden=True)] = None,
    engine: Annotated[
        str,
        typer.Option(metavar="ENGINE", help=f"Do not detect the engine; one of: {', '.join(ENGINES)}."),
    ] = "",
    api: Annotated[
        bool, typer.Option("--api", help="Ask each server for a completion and a chat completion of one token.")
    ] = False,
    orca: Annotated[
        bool, typer.Option("--orca", help="Ask for load headers, on a plain and on a streamed answer of one token.")
    ] = False,
    watch: Annotated[
        float | None,
        typer.Option(parser=parse_duration, metavar="TIME", help="Observe for so long, such as 10s; tell what moved."),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            parser=parse_duration, metavar="TIME", help="Limit on each GET; 5s unless given.", show_default=False
        ),
    ] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; a list for several servers.")] = False,
) -> None:
    """Check that model servers publish what pickers need.

    Fetches the metrics of each server, detects the engine, and judges them by the rules of the Model Server Protocol
    (docs/check.md). A URL is a server's, http://HOST:PORT, or exactly where its metrics are, with a path; both as
    URL,metrics=URL. Exit status: 0 when all are conformant, 1 when one is not, 2 when one could not be checked.

    \b
    Examples:
      tidegate check http://gpu-1:8000 http://gpu-2:8000
      tidegate check http://triton:8002/metrics --json
      tidegate check http://gpu-1:8000 --api --orca --watch 10s
    """
    if not urls:
        raise ConfigError("no model server is given", fix="Give URLs, such as http://localhost:8000.")
    if watch is not None and watch > MAX_WATCH_S:
        raise ConfigError(f"{watch:g} s is too long", key="--watch", fix="Watch at most 60m.")
    if timeout > MAX_TIMEOUT_S:
        raise ConfigError(f"{timeout:g} s is too long", key="--timeout", fix="Allow at most 10m.")
    options = CheckOptions(
        engine=engine_named(engine) if engine else None, timeout_s=timeout, api=api, orca=orca, watch_s=watch or 0.0
    )
    try:
        reports = uvloop.run(_check(urls, options))
    except asyncio.CancelledError:
        raise typer.Exit(INTERRUPTED) from None
    _print(reports, as_json=as_json)
    raise typer.Exit(exit_status(reports))


async def _check(urls: Sequence[str], options: CheckOptions) -> list[ServerReport]:
    cancel_on_signals()
    return await check_servers(urls, options)


def _print(reports: Sequence[ServerReport], *, as_json: bool) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # A server may write what the terminal's encoding lacks.
    try:
        if as_json:
            documents = [as_document(report) for report in reports]
            print(json.dumps(documents if len(documents) > 1 else documents[0], indent=2))
        else:
            _show(reports)
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would be told of again at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(1) from error  # as rich has it: whoever closed the pipe has seen enough
        fix = "Give the output another place."
        raise ConfigError(f"cannot write the report: {error.strerror}", fix=fix) from error


def _show(reports: Sequence[ServerReport]) -> None:
    console = Console(highlight=False)
    for number, report in enumerate(reports):
        if number:
            console.print()
        for part in render_report(report):
            console.print(part)
    if len(reports) > 1:
        console.print()
        console.print(render_summary(reports))
