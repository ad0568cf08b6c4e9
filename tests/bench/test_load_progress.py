"""Where a run stands → a bar on a terminal, lines elsewhere."""

from io import StringIO

from rich.console import Console

from tidegate.bench.load_progress import shown_progress
from tidegate.bench.load_run import Progress


def at(elapsed_s: float, ended: int) -> Progress:
    return Progress(elapsed_s=elapsed_s, total=40, ended=ended, failed=1, under_way=7)


def test_elsewhere_a_line_comes_every_five_seconds() -> None:
    out = StringIO()

    with shown_progress(Console(file=out, width=40), total=40) as show:
        for quarter in range(49):
            show(at(quarter / 4, ended=quarter // 2))

    assert out.getvalue().splitlines() == [
        "5 s: 10 of 40 ended, 7 under way, 1 failed",
        "10 s: 20 of 40 ended, 7 under way, 1 failed",
    ]


def test_after_a_pause_the_line_comes_once() -> None:
    out = StringIO()

    with shown_progress(Console(file=out), total=40) as show:
        for elapsed_s in (1.0, 23.0, 23.25, 25.0):
            show(at(elapsed_s, ended=3))

    assert [line.split(":")[0] for line in out.getvalue().splitlines()] == ["23 s", "25 s"]


def test_on_a_terminal_there_is_a_bar_with_counts() -> None:
    out = StringIO()

    with shown_progress(Console(file=out, width=100, force_terminal=True, color_system=None), total=40) as show:
        show(at(1.0, ended=3))

    assert "━" in out.getvalue()
    assert "3/40" in out.getvalue()
    assert "7 under way, 1 failed" in out.getvalue()
