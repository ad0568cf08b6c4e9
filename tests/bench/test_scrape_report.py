"""What `bench scrape` says of its figures, whichever way they go."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from tidegate.bench.scrape import ScrapeFigures, ScrapePlan
from tidegate.bench.scrape_costs import Comparison, Spread
from tidegate.bench.scrape_exporter import AddedTime
from tidegate.bench.scrape_fleet import FleetRun, LoopLoad
from tidegate.bench.scrape_report import costs_verdict, exporter_verdict, fleet_verdict, render_figures

PLAN = ScrapePlan(endpoints=1000, rate_hz=2.0, seconds=10.0)
IDLE = LoopLoad(
    seconds=10.0, cores=0.04, delay_p50_s=0.0001, delay_p99_s=0.0002, delay_max_s=0.003, own_p99_s=0.0, own_max_s=0.001
)
BUSY = LoopLoad(
    seconds=10.0, cores=0.7, delay_p50_s=0.0002, delay_p99_s=0.0011, delay_max_s=0.0123, own_p99_s=0.001, own_max_s=0.01
)


def about(median: float) -> Spread:
    """Return figures around one."""
    return Spread(median=median, low=0.9 * median, high=1.1 * median)


def comparison(ratio: float, name: str = "vLLM 84 kB") -> Comparison:
    """Return one in which prometheus_client takes so many times as much as tidegate."""
    return Comparison(
        exposition=name,
        body_bytes=84_283,
        tidegate_cpu_s=about(0.001),
        prometheus_client_cpu_s=about(0.001 * ratio),
        ratio=about(ratio),
    )


def fleet_run(loop: LoopLoad = BUSY, scrapes_per_s: float = 1990.0, missed: int = 0) -> FleetRun:
    """Return one of the fleet."""
    return FleetRun(
        exposition="vLLM 84 kB",
        body_bytes=84_283,
        loop=loop,
        scrapes_per_s=scrapes_per_s,
        missed=missed,
        reported_in_all=20_000,
        missed_in_all=missed,
        answered_in_all=20_010,
    )


def added(seconds: float) -> AddedTime:
    """Return what an exporter adds."""
    return AddedTime(
        exposition="Triton (no composites) 7 kB",
        body_bytes=6_600,
        direct_s=about(0.0004),
        through_exporter_s=about(0.0004 + seconds),
        added_s=about(seconds),
        gets=30,
        fetched=60,
    )


@pytest.mark.parametrize(
    ("ratios", "says"),
    [
        ([9.62, 88.1], "takes tidegate less CPU: from 1/88 to 1/9.6 of what it takes with prometheus_client."),
        ([0.5, 0.8], "takes tidegate more CPU: 1.2 to 2.0 times what it takes with prometheus_client."),
        (
            [0.5, 4.0],
            (
                "takes tidegate in part less CPU, in part more: from 1/4.0 to 2.0 times what it takes with "
                "prometheus_client."
            ),
        ),
    ],
)
def test_costs_are_told_whichever_way_they_go(ratios: list[float], says: str) -> None:
    assert costs_verdict("Parsing", [comparison(ratio) for ratio in ratios]) == f"Parsing {says}"


def test_a_fleet_that_keeps_within_the_limits() -> None:
    assert fleet_verdict(PLAN, IDLE, fleet_run()) == (
        "1,000 endpoints at 2 Hz, vLLM 84 kB: 1,990 scrapes/s on 0.70 cores, 0 missed; the loop came 1.1 ms late at "
        "p99 (1 ms of own work), 0.20 ms without scraping: within 1 core and 5 ms."
    )


def test_a_fleet_that_does_not() -> None:
    late = replace(BUSY, cores=1.2, delay_p99_s=0.0071, own_p99_s=0.0061)

    says = fleet_verdict(PLAN, IDLE, fleet_run(late, scrapes_per_s=1234.5, missed=7))

    assert says == (
        "1,000 endpoints at 2 Hz, vLLM 84 kB: 1,234 scrapes/s on 1.20 cores, 7 missed; the loop came 7.1 ms late at "
        "p99 (6.1 ms of own work), 0.20 ms without scraping: fewer than 2,000 scrapes/s, more than 1 core, later than "
        "5 ms."
    )


def test_a_fleet_whose_loop_others_kept_from_running() -> None:
    says = fleet_verdict(PLAN, IDLE, fleet_run(replace(BUSY, delay_p99_s=0.0071)))

    assert says.endswith("without scraping: later than 5 ms, though not by its own work.")


def test_the_exporter_may_add_next_to_nothing() -> None:
    assert exporter_verdict([added(0.0011), replace(added(-0.00001), exposition="vLLM 84 kB")]) == (
        "The exporter adds 1.1 ms to Triton (no composites) 7 kB, -0.01 ms to vLLM 84 kB."
    )


def test_all_of_it_fits_80_columns() -> None:
    figures = ScrapeFigures(
        plan=replace(PLAN, endpoints=5000, rate_hz=12.5, seconds=1234.5),
        python="3.11.7",
        cpus=2,
        parses=[comparison(1234.5, "vLLM (made) 1.0 MB"), comparison(0.01)],
        scrapes=[comparison(1234.5, "vLLM (made) 1.0 MB"), comparison(0.01)],
        idle=replace(IDLE, delay_max_s=1.2345),
        fleet=[fleet_run(replace(BUSY, delay_max_s=12.3456)), fleet_run(scrapes_per_s=12_345)],
        exporter=[added(0.0123), added(0.1234)],
    )
    console = Console(file=io.StringIO(), width=80)

    for part in render_figures(figures):
        console.print(part)

    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    for cell in ("1,234x (1,111 to 1,358)", "12,346 ms", "62,500", "5,000 endpoints at 12.5 Hz, 1234.5 s each"):
        assert cell in shown
