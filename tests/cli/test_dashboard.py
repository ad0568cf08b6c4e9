"""What `tidegate up` shows, whatever endpoints are called."""

import asyncio
import contextlib
import io

import pytest
from rich.console import Console

from processes import until
from tidegate.cli.dashboard import Dashboard
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
    rows = [f"│ {name} " if terminal else f"{name} unreachable queued=" for name in NAMES]
    events = [f"{name} is unreachable: http://{name}: [/refused]" for name in NAMES]
    told = [*rows, *events, "[/c]: no such host", "http://[::1]:8080"]
    assert not [text for text in told if text not in shown]
