"""What `tidegate up` shows, whatever endpoints are called."""

import asyncio
import contextlib
import io

import msgspec
import pytest
from rich.console import Console

from processes import until
from tidegate.cli.dashboard import Dashboard, PoolTable
from tidegate.gateway.report import EndpointReport, PoolReport

NAMES = ("[fd00::1]:8000", "[/x]", "fd00::1234:5", "[red]")


def report_of(*names: str) -> PoolReport:
    """Return a pool of endpoints that have these names, and that do not answer."""
    endpoints = [
        EndpointReport(
            name=name,
            address="10.0.0.1:8000",
            state="unreachable",
            queued_requests=None,
            running_requests=None,
            kv_utilization=None,
            in_flight=0,
            picks=0,
            served=0,
            age_s=None,
            error=f"http://{name}: [/refused]",
        )
        for name in names
    ]
    return PoolReport(endpoints=endpoints, outcomes={}, unpicked=0, problems=["[/c]: no such host"])


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "lines"])
async def test_names_and_messages_are_shown_as_they_are(terminal: bool) -> None:
    screen = io.StringIO()
    dashboard = Dashboard(Console(file=screen, force_terminal=terminal, width=200, color_system=None))

    async def read_pool() -> PoolReport:
        return report_of(*NAMES)

    async def is_shown() -> bool:
        return "kv=" in screen.getvalue() or "Ctrl-C" in screen.getvalue()

    dashboard.listening("http://[::1]:8080", "http://127.0.0.1:9090")
    running = asyncio.create_task(dashboard.run(read_pool))
    await until(is_shown)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running

    shown = screen.getvalue()
    rows = [f"\n{name} " if terminal else f"{name} unreachable queued=" for name in NAMES]
    events = [f"{name} is unreachable: http://{name}: [/refused]" for name in NAMES]
    told = [*rows, *events, "[/c]: no such host", "http://[::1]:8080"]
    assert not [text for text in told if text not in shown]


def table_of(*names: str, width: int) -> list[str]:
    """Return the lines of the table of such endpoints, and of one that serves as much as it can."""
    report = report_of(*names)
    silent = report.endpoints[0]
    full = msgspec.structs.replace(
        silent,
        name="full",
        state="ready",
        queued_requests=1234,
        running_requests=256,
        kv_utilization=1.0,
        in_flight=1490,
        age_s=0.2,
    )
    report = msgspec.structs.replace(report, endpoints=[*report.endpoints, full])
    screen = io.StringIO()
    table = PoolTable(report, {"full": 123.0}, title="tidegate on http://127.0.0.1:8080")
    Console(file=screen, width=width, color_system=None).print(table)
    return [line.rstrip() for line in screen.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("width", "heading", "full"),
    [
        (120, "endpoint state queued running KV in flight picks/s age", "full ready 1234 256 100 % 1490 123 0.2 s"),
        (80, "endpoint state queued running KV in flight picks/s age", "full ready 1234 256 100 % 1490 123 0.2 s"),
        (60, "endpoint state queued running KV flight", "full ready 1234 256 100 % 1490"),
    ],
)
def test_a_narrow_terminal_shows_endpoints_whole_and_has_fewer_columns(width: int, heading: str, full: str) -> None:
    names = ("127.0.0.1:45001", "127.0.0.1:45002")

    lines = table_of(*names, width=width)

    assert max(len(line) for line in lines) <= width
    cells = [" ".join(line.split()) for line in lines]
    assert heading in cells
    assert full in cells
    assert [line.split()[:2] for line in lines if "unreachable" in line] == [[name, "unreachable"] for name in names]


@pytest.mark.parametrize("width", [60, 80])
def test_a_name_longer_than_the_terminal_loses_nothing(width: int) -> None:
    name = f"{'gpu-17.' * 20}example.com:8000"

    lines = table_of(name, width=width)

    assert max(len(line) for line in lines) <= width
    folded = "".join(line.split()[0] for line in lines if "gpu" in line or "example" in line or ":8000" in line)
    assert folded == name


async def test_a_low_terminal_shows_the_newest_event_whole_and_how_many_endpoints_there_are_beside() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=60, height=24, color_system=None)
    dashboard = Dashboard(console)
    dashboard.listening("http://127.0.0.1:8080", "http://127.0.0.1:9090")
    names = [f"10.0.0.{number}:8000" for number in range(40)]
    frames: list[str] = []

    async def read_pool() -> PoolReport:
        return report_of(*names)

    async def is_shown() -> bool:
        frames[:] = screen.getvalue().split("tidegate on ")[1:]
        return bool(frames) and "the end" in frames[-1] and "Ctrl-C" in frames[-1]

    running = asyncio.create_task(dashboard.run(read_pool))
    await asyncio.sleep(0)  # from here on there is a table
    dashboard.say(f"envoy exited; its last words: {'x' * 70} the end")
    await until(is_shown)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running

    lines = frames[-1].splitlines()
    assert len(lines) == 24 - 1  # a blank one is before the title
    assert lines[-1].startswith("Ctrl-C stops everything")
    assert "the end" in lines[-2]
    rows = [line for line in lines if line.startswith("10.0.0.")]
    assert lines[4 + len(rows)].strip() == f"and {40 - len(rows)} more, 0 of them ready"
    assert len(rows) >= 8
