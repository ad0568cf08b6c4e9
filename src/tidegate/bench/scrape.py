"""What it costs to know how busy the servers are: `tidegate bench scrape`.

Bench: expositions → scrape_costs, scrape_fleet, scrape_exporter → **ScrapeFigures** → scrape_report.
"""

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tidegate.bench.scrape_costs import Comparison, compare_parsers, compare_scrapes
from tidegate.bench.scrape_exporter import AddedTime, measure_exporter
from tidegate.bench.scrape_expositions import load_expositions
from tidegate.bench.scrape_fleet import FleetRun, LoopLoad, measure_loop, scrape_fleet
from tidegate.bench.scrape_servers import prerendered_servers


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapePlan:
    """What is measured, and for how long."""

    endpoints: int
    rate_hz: float
    """Scrapes of each endpoint per second."""
    seconds: float
    """How long the fleet is measured, with each exposition."""
    rounds: int = 7
    """In each of which both parsers are measured."""
    batch_s: float = 0.1
    """About how long each is measured in each round; CPU seconds."""
    exporter_pairs: int = 30
    """GETs through the exporter, and as many directly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeFigures:
    """All that was measured."""

    plan: ScrapePlan
    python: str
    cpus: int | None
    parses: Sequence[Comparison]
    scrapes: Sequence[Comparison]
    """GET and parse."""
    idle: LoopLoad
    """The loop without scraping."""
    fleet: Sequence[FleetRun]
    exporter: Sequence[AddedTime]


async def measure_scraping(plan: ScrapePlan, *, directory: Path, say: Callable[[str], None]) -> ScrapeFigures:
    """Measure everything, one after the other; `say` tells people what is under way."""
    known = load_expositions()
    async with prerendered_servers(plan.endpoints, directory) as servers:
        say("CPU per parse ...")
        parses = [
            await compare_parsers(exposition, rounds=plan.rounds, batch_s=plan.batch_s) for exposition in known.parsed()
        ]
        say("CPU per scrape ...")
        scrapes = [
            await compare_scrapes(exposition, servers.url(exposition), rounds=plan.rounds, batch_s=plan.batch_s)
            for exposition in known.parsed()
        ]
        say("The event loop without scraping ...")
        idle = await measure_loop(plan.seconds)
        fleet = []
        for exposition in (known.vllm, known.vllm_ranks):
            say(f"{plan.endpoints:,} endpoints at {plan.rate_hz:g} Hz, {exposition.title} ...")
            fleet.append(await scrape_fleet(exposition, servers, rate_hz=plan.rate_hz, seconds=plan.seconds))
        say("The exporter ...")
        exporter = [
            await measure_exporter(exposition, servers, pairs=plan.exporter_pairs, directory=directory)
            for exposition in (known.triton_ingredients, known.vllm_ranks)
        ]
    return ScrapeFigures(
        plan=plan,
        python=platform.python_version(),
        cpus=os.cpu_count(),
        parses=parses,
        scrapes=scrapes,
        idle=idle,
        fleet=fleet,
        exporter=exporter,
    )
