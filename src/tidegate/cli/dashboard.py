"""What `tidegate up` shows: a live table on a terminal, lines elsewhere."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tidegate.gateway.report import EndpointReport, PoolReport

FRAME_S = 0.25
SUMMARY_S = 10.0
RATE_S = 2.0
EVENTS_SHOWN = 5

COLUMNS = ("endpoint", "state", "queued", "running", "KV", "in flight", "picks/s", "age")
DISPENSABLE = ("age", "picks/s", "in flight")
"""What goes where there is no room, in this order: the state already tells of reports that are old."""
MIN_WIDTHS = {
    "endpoint": len("endpoint"),
    "state": len("unreachable"),
    "KV": len("100 %"),
    "in flight": len("flight"),
    "age": len("99.9 s"),
}
"""So that the table does not jump when a state changes."""
UNLIMITED = 10_000
FRAME_LINES = 7
"""Of the screen, besides endpoints and events: two blank ones, title, heading of up to two, its rule, the hint."""

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
        self.say(f"gateway listens on {url}")
        self.say(f"metrics on {admin_url}/metrics")  # a line of its own: a URL that is broken cannot be clicked

    async def run(self, read_pool: ReadPool) -> None:
        """Show the pool until cancelled."""
        if not self._console.is_terminal:
            await self._print_lines(read_pool)
        with Live(console=self._console, auto_refresh=False, transient=False) as live:
            self._live = True
            async for report, rates in _frames(read_pool, FRAME_S):
                self._note_changes(report)
                events = self._shown_events()
                room = self._console.height - FRAME_LINES - sum(lines for _, lines in events)
                table = PoolTable(report, rates, title=self._title, room=room)
                hint = Text("Ctrl-C stops everything", style="dim")
                live.update(Group(Text(), table, Text(), *(event for event, _ in events), hint), refresh=True)

    def _shown_events(self) -> list[tuple[Text, int]]:
        """Return the events with the lines they take: one each, but the newest is shown whole."""
        shown = []
        for number, event in enumerate(self._events, 1):
            newest = number == len(self._events)
            line = event.copy()
            line.no_wrap, line.overflow = not newest, "fold" if newest else "ellipsis"
            shown.append((line, len(line.wrap(self._console, self._console.width)) if newest else 1))
        return shown

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


class PoolTable:
    """The table of endpoints, with as many columns and rows as the terminal has room for."""

    def __init__(
        self, report: PoolReport | None, rates: dict[str, float], *, title: str, room: int = UNLIMITED
    ) -> None:
        """`rates`: picks per second by endpoint name. `room`: lines for endpoints; there is always one."""
        self._report = report
        self._rates = rates
        self._title = title
        self._room = max(room, 2)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unlimited = options.update(width=UNLIMITED)  # a measurement is never above the width of its options
        for number in range(len(DISPENSABLE) + 1):
            table = self._table([column for column in COLUMNS if column not in DISPENSABLE[:number]])
            if Measurement.get(console, unlimited, table).minimum <= options.max_width:
                break
        else:  # Names of many letters go over several lines: both their beginnings and their ends tell them apart.
            table.columns[0].no_wrap = False
        yield table

    def _table(self, columns: Sequence[str]) -> Table:
        # Text throughout: in a str, the [fd00::1] of a name would be markup, and its :1234: a picture.
        # No lines between the columns, which would not all fit into 80 characters then.
        table = Table(
            title=Text(self._title, style="bold"),
            title_justify="left",
            header_style="bold",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for column in columns:
            is_text = column in {"endpoint", "state"}
            table.add_column(
                column,
                justify="left" if is_text else "right",
                no_wrap=column != "in flight",
                overflow="fold",
                min_width=MIN_WIDTHS.get(column),
            )
        if self._report is None:
            table.caption = Text("the picker does not answer; Envoy serves by least request meanwhile", style="dim")
            return table
        endpoints = self._report.endpoints
        shown = endpoints if len(endpoints) <= self._room else endpoints[: self._room - 1]
        for endpoint in shown:
            cells = _cells(endpoint, self._rates.get(endpoint.name, 0.0))
            table.add_row(*(cells[column] for column in columns))
        if hidden := endpoints[len(shown) :]:
            ready = sum(endpoint.state == "ready" for endpoint in hidden)
            table.caption = Text(f"and {len(hidden)} more, {ready} of them ready", style="dim")
            table.caption_justify = "left"
        return table


def render_summary(report: PoolReport, rates: dict[str, float]) -> str:
    """Return the pool in one line."""
    parts = [
        f"{e.name} {e.state} queued={_count(e.queued_requests)} running={_count(e.running_requests)} "
        f"kv={_percent(e.kv_utilization)} in-flight={e.in_flight} picks/s={rates.get(e.name, 0.0):.0f}"
        for e in report.endpoints
    ]
    return " | ".join(parts) if parts else "no endpoints"


def _cells(endpoint: EndpointReport, rate: float) -> dict[str, str | Text]:
    """Return what each of COLUMNS shows."""
    return {
        "endpoint": Text(endpoint.name),
        "state": Text(endpoint.state, style=STATE_STYLES.get(endpoint.state, "")),
        "queued": _count(endpoint.queued_requests),
        "running": _count(endpoint.running_requests),
        "KV": _percent(endpoint.kv_utilization),
        "in flight": str(endpoint.in_flight),
        "picks/s": f"{rate:.0f}",
        "age": "-" if endpoint.age_s is None else f"{endpoint.age_s:.1f} s",
    }


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
