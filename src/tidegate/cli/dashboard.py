"""What `tidegate up` shows: a live table on a terminal, lines elsewhere."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tidegate.gateway.report import EndpointReport, PoolReport

FRAME_S = 0.25
SUMMARY_S = 10.0
RATE_S = 2.0
EVENTS_SHOWN = 5

STATE_STYLES = {"ready": "green", "stale": "yellow", "unknown": "yellow", "ejected": "red", "unreachable": "red"}

ReadPool = Callable[[], Awaitable[PoolReport | None]]


class Dashboard:
    """Shows the pool and what happened; the newest of it stays on the screen."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._events: deque[Text] = deque(maxlen=EVENTS_SHOWN)
        self._title = ""
        self._live = False
        self._states: dict[str, str] = {}
        self._problems: set[str] = set()

    def say(self, message: str) -> None:
        """Tell what happened: beneath the table while there is one, else as a line."""
        line = Text(f"{datetime.now().astimezone():%H:%M:%S} {message}")
        if self._live:
            self._events.append(line)
        else:
            self._console.print(line, soft_wrap=True)

    def listening(self, url: str, admin_url: str) -> None:
        """Note where clients may send their requests from now on, and where the picker tells how it goes."""
        self._title = f"tidegate on {url}"
        self.say(f"gateway listens on {url}, metrics on {admin_url}/metrics")

    async def run(self, read_pool: ReadPool) -> None:
        """Show the pool until cancelled."""
        if not self._console.is_terminal:
            await self._print_lines(read_pool)
        with Live(console=self._console, auto_refresh=False, transient=False) as live:
            self._live = True
            async for report, rates in _frames(read_pool, FRAME_S):
                self._note_changes(report)
                table = render_table(report, rates, title=self._title)
                live.update(Group(table, *self._events, Text("Ctrl-C stops everything", style="dim")), refresh=True)

    async def _print_lines(self, read_pool: ReadPool) -> None:
        next_summary = 0.0
        async for report, rates in _frames(read_pool, FRAME_S):
            self._note_changes(report)
            if report and (now := asyncio.get_running_loop().time()) >= next_summary:
                next_summary = now + SUMMARY_S
                self.say(render_summary(report, rates))

    def _note_changes(self, report: PoolReport | None) -> None:
        if report is None:
            return
        for endpoint in report.endpoints:
            if self._states.get(endpoint.name) != endpoint.state:
                self._states[endpoint.name] = endpoint.state
                self.say(f"{endpoint.name} is {endpoint.state}" + (f": {endpoint.error}" if endpoint.error else ""))
        problems = set(report.problems)
        for problem in sorted(problems - self._problems):
            self.say(problem)
        self._problems = problems


async def _frames(read_pool: ReadPool, every_s: float) -> AsyncIterator[tuple[PoolReport | None, dict[str, float]]]:
    """Yield the pool and each endpoint's picks per second, over the last RATE_S seconds."""
    clock = asyncio.get_running_loop().time
    history: deque[tuple[float, dict[str, int]]] = deque(maxlen=round(RATE_S / every_s) + 1)
    while True:
        rates: dict[str, float] = {}
        if report := await read_pool():
            picks = {endpoint.name: endpoint.picks for endpoint in report.endpoints}
            history.append((clock(), picks))
            then, before = history[0]
            elapsed = max(history[-1][0] - then, every_s)
            # Of an endpoint that is new, or of a picker that restarted, the count before is not known.
            rates = {name: max(0, count - before.get(name, count)) / elapsed for name, count in picks.items()}
        yield report, rates
        await asyncio.sleep(every_s)


def render_table(report: PoolReport | None, rates: dict[str, float], *, title: str) -> Table:
    """Return the table of endpoints; `rates`: picks per second by endpoint name."""
    # Text throughout: in a str, the [fd00::1] of a name would be markup, and its :1234: a picture.
    table = Table(title=Text(title, style="bold"), title_justify="left", header_style="bold")
    table.add_column("endpoint")
    table.add_column("state")
    for heading in ("queued", "running", "KV utilization", "in flight", "picks/s", "report age"):
        table.add_column(heading, justify="right")
    if report is None:
        table.caption = Text("the picker does not answer; Envoy serves by least request meanwhile", style="dim")
        return table
    for endpoint in report.endpoints:
        table.add_row(*_cells(endpoint, rates.get(endpoint.name, 0.0)))
    return table


def render_summary(report: PoolReport, rates: dict[str, float]) -> str:
    """Return the pool in one line."""
    parts = [
        f"{e.name} {e.state} queued={_count(e.queued_requests)} running={_count(e.running_requests)} "
        f"kv={_percent(e.kv_utilization)} in-flight={e.in_flight} picks/s={rates.get(e.name, 0.0):.0f}"
        for e in report.endpoints
    ]
    return " | ".join(parts) if parts else "no endpoints"


def _cells(endpoint: EndpointReport, rate: float) -> tuple[str | Text, ...]:
    return (
        Text(endpoint.name),
        Text(endpoint.state, style=STATE_STYLES.get(endpoint.state, "")),
        _count(endpoint.queued_requests),
        _count(endpoint.running_requests),
        _percent(endpoint.kv_utilization),
        str(endpoint.in_flight),
        f"{rate:.0f}",
        "-" if endpoint.age_s is None else f"{endpoint.age_s:.1f} s",
    )


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
