"""What `tidegate check` shows of one server: its signals, what was found, and what moved."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tidegate.protocol.conformance.evidence import SIGNALS
from tidegate.protocol.conformance.finding import Finding, Level
from tidegate.protocol.conformance.watching import Movement
from tidegate.protocol.signals import LoraSignals
from tidegate.publish.check.report import ServerReport

LEVEL_STYLES = {Level.ERROR: "bold red", Level.WARNING: "yellow", Level.INFO: "dim"}
UNKNOWN = "-"
_INDENT = len("warning") + 2
_GAP = 2


def render_report(report: ServerReport) -> Iterator[RenderableType]:
    """Yield the parts of one server's report, in their order."""
    yield _title(report)
    if report.engine is not None:
        yield SignalTable(report)
    if report.movements:
        yield Text()
        yield _movements(report.movements)
    if report.findings:
        yield Text()
        yield from (part for finding in report.findings for part in _finding(finding))


def render_summary(reports: Sequence[ServerReport]) -> Text:
    """Return how many of several servers are conformant."""
    return Text(f"{sum(report.conformant for report in reports)} of {len(reports)} servers conformant", style="bold")


def _title(report: ServerReport) -> Text:
    verdict, style = ("conformant", "bold green") if report.conformant else ("not conformant", "bold red")
    if not report.checked:
        verdict = "could not be checked"
    title = Text(report.url, style="bold")
    title.append(f"  {report.engine}" if report.engine else "", style="default not bold")
    title.append(f"  {verdict}", style=style)
    if report.metrics_url not in ("", report.url):
        title.append(f"\nmetrics at {report.metrics_url}", style="dim not bold")
    return title


class SignalTable:
    """The signals, their values, and where they came from."""

    def __init__(self, report: ServerReport) -> None:
        self._report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        values = {name: _value(name, getattr(self._report.signals, name)) for name in SIGNALS}
        table = _table("signal", ("value", True), "from")
        others = max(map(len, SIGNALS)) + max(len("value"), *map(len, values.values())) + 2 * _GAP
        for name, value in values.items():
            source = self._report.sources.get(name, UNKNOWN)
            table.add_row(Text(name), value, Text(_folded(source, options.max_width - others)))
        yield table


def _folded(source: str, room: int) -> str:
    """Break a source that is too long for its column where a reader would: between selectors, then before labels."""
    if len(source) <= room:
        return source
    lines = source.replace(" - ", "\n- ").replace(" / ", "\n/ ").split("\n")
    return "\n".join(line if len(line) <= room else line.replace("{", "\n{") for line in lines)


def _movements(movements: tuple[Movement, ...]) -> Table:
    table = _table("moved", ("first", True), ("last", True), ("min", True), ("max", True), ("changes", True))
    for one in movements:
        figures = (_value(one.name, figure) for figure in (one.first, one.last, one.least, one.most))
        table.add_row(Text(one.name), *figures, str(one.changes))
    return table


def _finding(finding: Finding) -> Iterator[RenderableType]:
    head = Text(f"{finding.level:<{_INDENT}}", style=LEVEL_STYLES[finding.level])
    head.append(finding.rule, style="bold")
    yield head
    yield Padding(Text(finding.message), (0, 0, 0, _INDENT), expand=False)
    if finding.fix:
        yield Padding(Text(f"Fix: {finding.fix}"), (0, 0, 0, _INDENT), expand=False)


def _table(*columns: str | tuple[str, bool]) -> Table:
    """Return a table without rows; a column is its heading, and whether it holds numbers."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column in columns:
        heading, numeric = column if isinstance(column, tuple) else (column, False)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold", no_wrap=heading != "from")
    return table


def _value(name: str, value: float | LoraSignals | None) -> Text:
    if value is None:
        return Text(UNKNOWN, style="dim")
    if isinstance(value, LoraSignals):
        most = UNKNOWN if value.max_adapters is None else str(value.max_adapters)
        return Text(f"{len(value.running)}/{most}")
    return Text(f"{value:.3f}" if name == "kv_utilization" else f"{value:.0f}")
