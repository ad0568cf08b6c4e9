"""Where a load run stands: a bar on a terminal, a line now and then elsewhere."""

import contextlib
from collections.abc import Callable, Iterator

from rich import progress as bars
from rich.console import Console

from tidegate.bench.load_run import Progress

LINE_EVERY_S = 5.0


@contextlib.contextmanager
def shown_progress(console: Console, *, total: int) -> Iterator[Callable[[Progress], None]]:
    """Yield what is to be called with every Progress."""
    if not console.is_terminal:
        yield _Lines(console).show
        return
    columns = (
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("{task.fields[now]}"),
    )
    # Drawn when told, not by a thread of its own: that would take turns from the one that reads tokens.
    with bars.Progress(*columns, console=console, auto_refresh=False) as drawn:
        bar = drawn.add_task("load", total=total, now="")

        def show(progress: Progress) -> None:
            drawn.update(bar, completed=progress.ended, now=_now(progress), refresh=True)

        yield show


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = LINE_EVERY_S

    def show(self, progress: Progress) -> None:
        if progress.elapsed_s >= self._next_s:
            self._next_s = LINE_EVERY_S * (progress.elapsed_s // LINE_EVERY_S + 1)
            line = f"{progress.elapsed_s:.0f} s: {progress.ended} of {progress.total} ended, {_now(progress)}"
            self._console.print(line, highlight=False, soft_wrap=True)


def _now(progress: Progress) -> str:
    return f"{progress.under_way} under way, {progress.failed} failed"
