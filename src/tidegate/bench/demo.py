"""The main job, live: one bursty workload over simulated servers, once by round robin, once as tidegate picks.

Same arrivals, same seed, same Envoy; the servers are restarted between the runs, and the seed decides which is first.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from tidegate.bench.client import run_load
from tidegate.bench.fleet import simulated_fleet
from tidegate.bench.lengths import TokenLengths
from tidegate.bench.report import RunSummary, render_comparison, summarize, verdict
from tidegate.bench.workload import Arrival, PromptMix, SharedPrefixes, bursty_workload
from tidegate.gateway.local import LocalGateway, reserved_port
from tidegate.gateway.process import own_command
from tidegate.protocol.errors import TidegateError

MODEL = "tensorrt_llm"
ROUND_ROBIN, TIDEGATE = "round robin", "tidegate"
READY_TIMEOUT_S = 30.0
REQUEST_TIMEOUT_S = 60.0
SAMPLE_S = 0.25
SERVER_OPTIONS = (
    *("--max-batch-size", "8", "--num-blocks", "480", "--tokens-per-block", "32"),
    *("--iteration-ms", "20", "--prefill-us", "150"),
)
"""A large model on one modest GPU: some 5 requests/s of this workload, and slow enough for two cores to run four."""
COMPOSITE_LABELS = ('request_type="waiting"', 'kv_cache_block_type="fraction"')
"""What marks the two composite series in a server's exposition, in the order they are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """What the demo runs."""

    seed: int
    servers: int = 4
    duration_s: float = 10.0
    rate_per_s: float = 15.0
    server_options: Sequence[str] = SERVER_OPTIONS

    def arrivals(self) -> list[Arrival]:
        """Return the workload: the same for the same plan.

        Bursts make the number of requests in a few seconds differ by a third from seed to seed, which would decide
        whether the fleet is near its limit. So the first `rate x duration` arrivals are stretched over the duration.
        """
        wanted = round(self.duration_s * self.rate_per_s)
        drawn = bursty_workload(
            seed=self.seed,
            duration_s=4 * self.duration_s,
            rate_per_s=self.rate_per_s,
            burstiness=4.0,
            prompts=PromptMix(long=TokenLengths(median_tokens=4000, sigma=0.3, max_tokens=7000), long_share=0.08),
            outputs=TokenLengths(median_tokens=40, sigma=0.9, max_tokens=300),
            prefixes=SharedPrefixes(groups=6, tokens=256),
        )[:wanted]
        stretch = self.duration_s / drawn[-1].at_s
        return [replace(arrival, at_s=arrival.at_s * stretch) for arrival in drawn]

    def order(self) -> list[str]:
        """Return which run is first and which second."""
        names = [ROUND_ROBIN, TIDEGATE]
        random.Random(self.seed).shuffle(names)  # noqa: S311
        return names


@dataclass(frozen=True, slots=True)
class _Run:
    summary: RunSummary
    idle: list[str]
    busiest: list[str]


async def run_demo(plan: DemoPlan, *, envoy: Path, directory: Path, console: Console) -> None:
    """Run both, print what one server published and how the runs compare."""
    arrivals = plan.arrivals()
    prompts = sorted(arrival.prompt_tokens for arrival in arrivals)
    console.print(
        f"{plan.servers} simulated TensorRT-LLM servers behind a real Envoy; {len(arrivals)} streamed chat completions "
        f"in {plan.duration_s:g} s, in bursts; prompts of {prompts[0]} to {prompts[-1]} tokens (seed {plan.seed}).",
        highlight=False,
        soft_wrap=not console.is_terminal,  # a line in a file, words kept whole on a screen
    )
    runs: dict[str, _Run] = {}
    for name in plan.order():
        (run_directory := directory / name.replace(" ", "-")).mkdir()
        runs[name] = await _run(name, plan, arrivals, envoy=envoy, directory=run_directory, console=console)
    published = runs[TIDEGATE]
    for heading, series in (
        ("\nThe composite metrics of one server, idle:", published.idle),
        ("and at its busiest:", published.busiest),
    ):
        console.print(Text("\n  ".join([heading, *series])), soft_wrap=True)
    baseline, candidate = runs[ROUND_ROBIN].summary, runs[TIDEGATE].summary
    console.print()
    console.print(render_comparison([baseline, candidate], title="Same arrivals, same servers, same Envoy"))
    console.print(verdict(baseline, candidate), highlight=False, soft_wrap=not console.is_terminal)


async def _run(
    name: str, plan: DemoPlan, arrivals: Sequence[Arrival], *, envoy: Path, directory: Path, console: Console
) -> _Run:
    async with (
        simulated_fleet(plan.servers, directory, plan.server_options) as servers,
        _gateway(servers, steered=name == TIDEGATE, envoy=envoy, directory=directory, console=console) as url,
        aiohttp.ClientSession() as session,
    ):
        idle = await _composites(session, servers[0])
        sampling = asyncio.create_task(_busiest(session, servers[0]))
        progress = Progress(
            TextColumn(f"{name:>12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        try:
            with progress:
                bar = progress.add_task(name, total=len(arrivals))
                results = await run_load(
                    url, arrivals, model=MODEL, timeout_s=REQUEST_TIMEOUT_S, on_result=lambda _: progress.advance(bar)
                )
        finally:
            sampling.cancel()
            busiest = await sampling
    return _Run(summarize(name, results), idle, busiest)


@contextlib.asynccontextmanager
async def _gateway(
    servers: Sequence[str], *, steered: bool, envoy: Path, directory: Path, console: Console
) -> AsyncIterator[str]:
    """Run a gateway in front of the servers; yields its URL once it knows them all."""
    host = "127.0.0.1"
    with reserved_port(host, 0, fix="Free a port.") as port:
        gateway = LocalGateway(
            directory,
            envoy=envoy,
            host=host,
            port=port,
            picker_argv=own_command("picker", *servers),
            steered=steered,
            say=lambda message: console.print(Text(message, style="yellow"), soft_wrap=True),
        )
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(gateway.run(), name="gateway")
            try:
                async with asyncio.timeout(READY_TIMEOUT_S):
                    url = await gateway.url()
                    await gateway.endpoints_ready()
            except TimeoutError as error:
                problem = (
                    f"the gateway was not ready within {READY_TIMEOUT_S:.0f} s. What it needed to start again is above."
                )
                raise TidegateError(problem) from error
            yield url
            running.cancel()


async def _busiest(session: aiohttp.ClientSession, server: str) -> list[str]:
    """Return, when cancelled, the composite series seen with the most waiting requests."""
    busiest: list[str] = []
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            series = await _composites(session, server)
            busiest = max(busiest, series, key=lambda lines: float(lines[0].rpartition(" ")[2]) if lines else -1.0)
            await asyncio.sleep(SAMPLE_S)
    return busiest


async def _composites(session: aiohttp.ClientSession, server: str) -> list[str]:
    """Return the lines of the composite series in a server's exposition."""
    async with session.get(f"{server}/metrics") as response:
        lines = (await response.text()).splitlines()
    return [line for label in COMPOSITE_LABELS for line in lines if label in line]
