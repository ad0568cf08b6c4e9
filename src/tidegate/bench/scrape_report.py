"""What scraping costs, for people: four tables, and a sentence for each that says which way it went."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from tidegate.bench.scrape import ScrapeFigures, ScrapePlan
from tidegate.bench.scrape_costs import Comparison, Spread
from tidegate.bench.scrape_exporter import AddedTime
from tidegate.bench.scrape_fleet import FleetRun, LoopLoad

MOST_CORES = 1.0
"""What scraping a thousand endpoints may take, since the picker has one core."""
LONGEST_DELAY_P99_S = 0.005
"""How late the picker's loop may come at p99 meanwhile; seconds."""
KEPT_UP = 0.95
"""Share of the rate asked for below which the scraper did not keep up. Pauses begin when a scrape ends, so a little is
always missing."""


def render_figures(figures: ScrapeFigures) -> Sequence[Table | str]:
    """Return the tables, each followed by its sentences."""
    return (
        _costs_table("CPU per parse, median ± quartiles", figures.parses, "prometheus_client"),
        costs_verdict("Parsing", figures.parses),
        _costs_table("CPU per scrape over HTTP, GET and parse, median ± quartiles", figures.scrapes, "with aiohttp"),
        costs_verdict("Scraping", figures.scrapes),
        _fleet_table(figures),
        *(fleet_verdict(figures.plan, figures.idle, run) for run in figures.fleet),
        _exporter_table(figures.exporter),
        exporter_verdict(figures.exporter),
    )


def costs_verdict(what: str, comparisons: Sequence[Comparison]) -> str:
    """Say in one sentence which takes less CPU."""
    ratios = [comparison.ratio.median for comparison in comparisons]
    least, most = min(ratios), max(ratios)
    if least >= 1:
        share = f"from 1/{_factor(most)} to 1/{_factor(least)} of what it takes"
        return f"{what} takes tidegate less CPU: {share} with prometheus_client."
    if most < 1:
        share = f"{_factor(1 / most)} to {_factor(1 / least)} times what it takes"
        return f"{what} takes tidegate more CPU: {share} with prometheus_client."
    share = f"from 1/{_factor(most)} to {_factor(1 / least)} times what it takes"
    return f"{what} takes tidegate in part less CPU, in part more: {share} with prometheus_client."


def fleet_verdict(plan: ScrapePlan, idle: LoopLoad, run: FleetRun) -> str:
    """Say in one sentence whether scraping keeps within what the picker can spare."""
    loop = run.loop
    asked = plan.endpoints * plan.rate_hz
    broken = []
    if run.scrapes_per_s < KEPT_UP * asked:
        broken.append(f"fewer than {asked:,.0f} scrapes/s")
    if loop.cores > MOST_CORES:
        broken.append(f"more than {MOST_CORES:g} core")
    if loop.delay_p99_s > LONGEST_DELAY_P99_S:
        neighbours = "" if loop.own_p99_s > LONGEST_DELAY_P99_S else ", though not by its own work"
        broken.append(f"later than {LONGEST_DELAY_P99_S * 1000:g} ms{neighbours}")
    limits = ", ".join(broken) or f"within {MOST_CORES:g} core and {LONGEST_DELAY_P99_S * 1000:g} ms"
    return (
        f"{plan.endpoints:,} endpoints at {plan.rate_hz:g} Hz, {run.exposition}: {run.scrapes_per_s:,.0f} scrapes/s on "
        f"{loop.cores:.2f} cores, {run.missed} missed; the loop came {_duration(loop.delay_p99_s)} late at p99 "
        f"({_duration(loop.own_p99_s)} of own work), {_duration(idle.delay_p99_s)} without scraping: {limits}."
    )


def exporter_verdict(times: Sequence[AddedTime]) -> str:
    """Say in one sentence what the exporter adds."""
    return (
        "The exporter adds "
        + ", ".join(f"{_duration(time.added_s.median)} to {time.exposition}" for time in times)
        + "."
    )


def _costs_table(title: str, comparisons: Sequence[Comparison], theirs: str) -> Table:
    table = _table(title, "tidegate", theirs, "ratio")
    for comparison in comparisons:
        ratio = comparison.ratio
        table.add_row(
            comparison.exposition,
            _quartiles(comparison.tidegate_cpu_s),
            _quartiles(comparison.prometheus_client_cpu_s),
            f"{_factor(ratio.median)}x ({_factor(ratio.low)} to {_factor(ratio.high)})",
        )
    return table


def _fleet_table(figures: ScrapeFigures) -> Table:
    plan = figures.plan
    title = f"{plan.endpoints:,} endpoints at {plan.rate_hz:g} Hz, {plan.seconds:g} s each"
    table = _table(title, "no scraping", *(run.exposition for run in figures.fleet))
    loops = [figures.idle, *(run.loop for run in figures.fleet)]
    table.add_row("scrapes/s", "-", *(f"{run.scrapes_per_s:,.0f}" for run in figures.fleet))
    table.add_row("missed", "-", *(str(run.missed) for run in figures.fleet))
    table.add_row("cores", *(f"{loop.cores:.2f}" for loop in loops))
    table.add_row("loop late, p50", *(_duration(loop.delay_p50_s) for loop in loops))
    table.add_row("loop late, p99", *(_duration(loop.delay_p99_s) for loop in loops))
    table.add_row("loop late, longest", *(_duration(loop.delay_max_s) for loop in loops))
    table.add_row("of own work, p99", *(_duration(loop.own_p99_s) for loop in loops))
    table.add_row("of own work, longest", *(_duration(loop.own_max_s) for loop in loops))
    return table


def _exporter_table(times: Sequence[AddedTime]) -> Table:
    table = _table("GET through the exporter, elapsed, median ± quartiles", "directly", "through it", "added")
    for time in times:
        cells = (time.direct_s, time.through_exporter_s, time.added_s)
        table.add_row(time.exposition, *map(_quartiles, cells))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title, style="table.title"), title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _factor(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"


def _quartiles(spread: Spread) -> str:
    """Return the median, and half the distance between the quartiles as a share of it."""
    share = (spread.high - spread.low) / 2 / abs(spread.median) if spread.median else 0.0
    return f"{_duration(spread.median)} ± {share:.0%}"


def _duration(seconds: float) -> str:
    milliseconds = seconds * 1000
    if abs(milliseconds) >= 100:
        return f"{milliseconds:,.0f} ms"
    return f"{milliseconds:.3g} ms" if abs(milliseconds) >= 1 else f"{milliseconds:.2f} ms"
