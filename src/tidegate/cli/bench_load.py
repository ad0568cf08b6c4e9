"""`tidegate bench load`: an open-loop load generator for servers that speak OpenAI's API."""

import asyncio
import gc
import importlib
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer
import uvloop
from rich.console import Console
from rich.text import Text

from tidegate.bench.lengths import parse_lengths
from tidegate.bench.load_json import render_json
from tidegate.bench.load_plan import LoadPlan, parse_variation
from tidegate.bench.load_progress import shown_progress
from tidegate.bench.load_report import render_load
from tidegate.bench.load_run import LoadFigures, LoadRun, LoadSetup
from tidegate.bench.models import first_model
from tidegate.bench.slo import parse_slo
from tidegate.bench.target import Api, Target, generate_stream_model, parse_root, parse_target
from tidegate.cli.files import check_writable, make_directory, write_file
from tidegate.cli.options import parse_amount, whole
from tidegate.cli.stopping import cancel_on_signals
from tidegate.protocol.errors import ConfigError

INTERRUPTED = 130
"""Exit status of a measurement that was ended early, as shells have it for Ctrl-C."""
ALL_FAILED = 1
DURATION_S = 30.0
LEAST_AMOUNT, MOST_AMOUNT = 0.001, 1_000_000.0
"""Of seconds, and of requests per second."""
MOST_OPEN = 10_000
SPARE_FILES = 64
"""Files the process opens besides connections."""

T = TypeVar("T")


def load(
    url: Annotated[str, typer.Argument(metavar="URL", hidden=True)],
    against: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Send every other request to this one, and say what URL adds to it. Also Triton's "
            "http://HOST:PORT/v2/models/MODEL/generate_stream.",
        ),
    ] = "",
    model: Annotated[
        str, typer.Option(metavar="NAME", help="Model to ask for.", show_default="the first of /v1/models")
    ] = "",
    chat: Annotated[bool, typer.Option("--chat/--completions", help="Which of OpenAI's APIs.")] = True,
    rate: Annotated[
        float, typer.Option(parser=parse_amount, metavar="HZ", help="Requests that are due per second, on average.")
    ] = 10.0,
    arrivals: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="poisson, or bursty: gaps between requests are gamma distributed with a coefficient of variation of "
            "2, or of CV with bursty:CV (poisson has 1; the higher, the denser the bursts).",
        ),
    ] = "poisson",
    duration: Annotated[
        float | None,
        typer.Option(
            parser=parse_amount,
            metavar="S",
            help="How long requests are due, after the warm-up.",
            show_default=f"{DURATION_S:g}, without --requests",
        ),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(parser=whole(1), metavar="N", help="Instead of --duration: how many are due after the warm-up."),
    ] = None,
    warm_up: Annotated[
        float, typer.Option(parser=parse_amount, metavar="S", help="Requests due in this time are sent, not counted.")
    ] = 5.0,
    input_tokens: Annotated[
        str,
        typer.Option(
            metavar="LENGTHS",
            help="Of prompts: 256, 100..500 (evenly spread) or lognormal:200,0.8 (median, sigma). A token is a word of "
            "three letters.",
        ),
    ] = "256",
    output_tokens: Annotated[
        str, typer.Option(metavar="LENGTHS", help="Of answers (max_tokens), in the same words.")
    ] = "64",
    shared_prefix: Annotated[
        int, typer.Option(parser=whole(0, 1_000_000), metavar="TOKENS", help="Further tokens that prompts begin with.")
    ] = 0,
    prefixes: Annotated[
        int, typer.Option(parser=whole(1, 100_000), metavar="N", help="How many different ones of these there are.")
    ] = 1,
    slo: Annotated[
        str,
        typer.Option(
            metavar="LIMITS",
            help="What a good answer keeps, in seconds: ttft=0.5,tpot=0.05,e2e=10, or some of them. Gives the goodput.",
        ),
    ] = "",
    seed: Annotated[int, typer.Option(parser=whole(0), metavar="N", help="Decides arrivals, lengths and texts.")] = 1,
    timeout: Annotated[
        float, typer.Option(parser=parse_amount, metavar="S", help="A request is given up so long after it was due.")
    ] = 120.0,
    max_open: Annotated[
        int | None,
        typer.Option(
            parser=whole(1),
            metavar="N",
            help="Requests under way at a time. One more that is due is not sent, and counts as failed.",
            show_default=f"{MOST_OPEN}, or what the limit on open files allows",
        ),
    ] = None,
    cpu_of: Annotated[
        int | None,
        typer.Option(
            parser=whole(1), metavar="PID", help="Say what CPU this process behind URL takes, with its children."
        ),
    ] = None,
    label: Annotated[str, typer.Option(metavar="TEXT", help="Heads the table, the JSON and the plots.")] = "",
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all figures and every request here, too.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Draw PNGs there. Needs matplotlib: tidegate[bench].")
    ] = None,
) -> None:
    """Send load to a server, and say how it answers.

    URL is the root of whatever streams OpenAI's API: http://HOST:PORT. Requests go out when they are due, whether or
    not those before have been answered (an open loop). Prints times to first token (TTFT), per further output token
    (TPOT) and end to end, failures, and throughput. Exits 1 when every request failed. Ctrl-C ends the run; what has
    been answered is reported (exit status 130).

    \b
    Examples:
      tidegate bench load http://gpu-1:8000 --rate 40 --slo ttft=0.5,tpot=0.05
      tidegate bench load http://gpu-1:8000 --against http://gpu-2:8000
    """
    _check_amounts({"--rate": rate, "--timeout": timeout, "--duration": duration})
    if duration is not None and requests is not None:
        raise ConfigError("given beside --requests", fix="Use one of both.", key="--duration")
    plan = LoadPlan(
        seed=seed,
        rate_per_s=rate,
        variation=_option("--arrivals", parse_variation, arrivals),
        requests=requests,
        duration_s=DURATION_S if duration is None and requests is None else duration,
        warm_up_s=warm_up,
        input_tokens=_option("--input-tokens", parse_lengths, input_tokens),
        output_tokens=_option("--output-tokens", parse_lengths, output_tokens),
        shared_prefix_tokens=shared_prefix,
        prefixes=prefixes,
    )
    setup = LoadSetup(
        plan=plan,
        targets=(),
        slo=_option("--slo", parse_slo, slo) if slo else None,
        timeout_s=timeout,
        max_open=_most_open(max_open),
        cpu_of=cpu_of,
        label=label,
    )
    if json is not None:
        check_writable(json, key="--json")
    draw = _plotter(plots)
    started = datetime.now(tz=UTC)
    urls = [url, against] if against else [url]
    try:
        figures, ended_early = _measure(setup, urls, model=model, api=Api.CHAT if chat else Api.COMPLETION)
        _print(figures)
        if json is not None:
            write_file(json, render_json(figures, started=started), key="--json")
        draw(figures)
    except KeyboardInterrupt:  # a further Ctrl-C, while the figures are drawn up
        raise typer.Exit(INTERRUPTED) from None
    if ended_early:
        raise typer.Exit(INTERRUPTED)
    if figures.silent:
        raise typer.Exit(ALL_FAILED)


def _print(figures: LoadFigures) -> None:
    console = Console()
    for part in render_load(figures):
        console.print(part, highlight=False, soft_wrap=isinstance(part, Text) and not console.is_terminal)


def _measure(setup: LoadSetup, urls: Sequence[str], *, model: str, api: Api) -> tuple[LoadFigures, bool]:
    """Run it; returns the figures, and whether it was ended early. Raises typer.Exit when there are none."""
    run: LoadRun | None = None

    async def measure() -> None:
        nonlocal run
        cancel_on_signals()
        targets = [await _find(url, model=model, api=api) for url in urls]
        if len(set(targets)) < len(targets):
            raise ConfigError("it is the same as URL", fix="Name another server.", key="--against")
        run = LoadRun(replace(setup, targets=targets))
        # A full collection of what is there by now took 40 to 80 ms, in which no request was sent and no token seen.
        gc.collect()
        gc.freeze()
        with shown_progress(Console(stderr=True), total=run.requests) as show:
            await run.run(show)

    try:
        uvloop.run(measure())
    except asyncio.CancelledError:
        if run is None:
            raise typer.Exit(INTERRUPTED) from None
        return run.figures(), True
    assert run is not None  # noqa: S101 - measure() sets it before it returns
    return run.figures(), False


async def _find(url: str, *, model: str, api: Api) -> Target:
    """Return the target at `url`, its model asked for where nobody named one."""
    root = parse_root(url)
    if model or generate_stream_model(root) is not None:
        return parse_target(url, model=model, api=api)
    return parse_target(url, model=await first_model(root), api=api)


def _check_amounts(amounts: Mapping[str, float | None]) -> None:
    for key, amount in amounts.items():
        if amount is not None and not LEAST_AMOUNT <= amount <= MOST_AMOUNT:
            fix = f"Use {LEAST_AMOUNT:g} to {MOST_AMOUNT:,.0f}."
            raise ConfigError(f"{amount:g} is out of range", fix=fix, key=key)


def _most_open(wanted: int | None) -> int:
    """Return how many requests may be under way. Raises ConfigError when the file limit does not allow that."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = files - SPARE_FILES
    if wanted is None:
        return min(MOST_OPEN, possible)
    if wanted > possible:
        raise ConfigError(
            f"a process may open {files} files here, too few for {wanted}",
            fix=f"Use {possible} at most, or raise the limit (ulimit -n).",
            key="--max-open",
        )
    return wanted


def _plotter(directory: Path | None) -> Callable[[LoadFigures], None]:
    """Return what draws the figures; nothing without a directory. Raises ConfigError where it could not."""
    if directory is None:
        return lambda figures: None
    try:
        # Only here: matplotlib is in an extra, and takes half a second to import.
        drawing = importlib.import_module("tidegate.bench.load_plots")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("matplotlib"):
            raise
        fix = "Run pip install 'tidegate[bench]', or leave --plots out."
        raise ConfigError("plots need matplotlib, which is not installed", fix=fix, key="--plots") from error
    make_directory(directory, key="--plots")

    def draw(figures: LoadFigures) -> None:
        try:
            drawing.write_plots(figures, directory)
        except OSError as error:
            raise ConfigError(f"cannot draw: {error}", fix="Give another directory.", key="--plots") from error

    return draw


def _option(key: str, parse: Callable[[str], T], text: str) -> T:
    """Return what an option says, parsed; a ConfigError then names the option."""
    try:
        return parse(text)
    except ConfigError as error:
        raise ConfigError(error.problem, fix=error.fix, key=key) from error
