"""A load run as pictures: TTFT over time, how latencies are distributed, what was under way. Needs matplotlib.

Bench: LoadFigures → **PNG**.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tidegate.bench.load_compare import Floats
from tidegate.bench.load_figures import concurrency
from tidegate.bench.load_report import describe_plan
from tidegate.bench.load_run import MEASURES, LoadFigures
from tidegate.bench.results import RequestResult

COLOURS = ("#0072b2", "#d55e00")
"""Told apart by the colour-blind, too."""
LINES = ("-", "--")
"""Where both targets do the same, one must not hide the other."""
FAILED = "#555555"
OBJECTIVE = "#009e73"
DPI = 120
MOST_TICKS = 5
"""Of five-digit milliseconds, side by side."""
FARTHEST_LIMIT = 1.5
"""An objective is drawn up to so many times the longest duration."""
LONG_NAMES = {"ttft": "Time to first token", "tpot": "Time per output token", "e2e": "End to end"}


def write_plots(figures: LoadFigures, directory: Path) -> list[Path]:
    """Draw all pictures into `directory`; returns their files. Raises OSError."""
    drawings: Sequence[tuple[str, Callable[[LoadFigures], Figure]]] = (
        ("ttft-over-time.png", draw_ttft_over_time),
        ("latencies.png", draw_distributions),
        ("load-over-time.png", draw_load_over_time),
    )
    files = []
    for name, draw in drawings:
        files.append(directory / name)
        draw(figures).savefig(files[-1], dpi=DPI)
    return files


def draw_ttft_over_time(figures: LoadFigures) -> Figure:
    """Return each request's time to first token, and the failures, by when it was due."""
    figure = _figure(figures, height=4.5)
    axes = figure.subplots()
    for place, target in enumerate(figures.targets):
        results = figures.results[place]
        answered = [result for result in results if result.error is None and result.ttft_s is not None]
        axes.scatter(
            [result.at_s for result in answered],
            [1000 * (result.ttft_s or 0.0) for result in answered],
            s=9,
            alpha=0.6,
            linewidths=0,
            color=COLOURS[place],
            label=f"{target.name} ({len(answered):,})",
        )
    failed = [result.at_s for results in figures.results for result in results if result.error is not None]
    if failed:
        # At the foot of the axes, whatever their scale.
        axes.scatter(
            failed,
            [0.02] * len(failed),
            marker="x",
            s=18,
            color=FAILED,
            transform=axes.get_xaxis_transform(),
            label=f"failed ({len(failed):,})",
        )
    _label(axes, x="due, seconds since the start", y="time to first token, ms")
    axes.set_ylim(bottom=0)
    _legend(axes)
    return figure


def draw_distributions(figures: LoadFigures) -> Figure:
    """Return what share of the answered requests was at least so quick, for each measure."""
    figure = _figure(figures, height=4.8, width=12)
    for axes, measure in zip(figure.subplots(1, len(MEASURES), sharey=True), MEASURES, strict=True):
        for place, target in enumerate(figures.targets):
            values = _milliseconds(figures.results[place], f"{measure}_s")
            shares = np.arange(1, len(values) + 1) / max(1, len(values))
            line = {"color": COLOURS[place], "linestyle": LINES[place], "label": target.name}
            axes.step(values, shares, where="post", linewidth=1.6, **line)
        for share in (0.5, 0.9, 0.99):
            axes.axhline(share, color="#bbbbbb", linewidth=0.7, linestyle=":", zorder=0)
        _mark_limit(axes, getattr(figures.setup.slo, f"{measure}_s", None))
        _label(axes, x=f"{LONG_NAMES[measure].lower()}, ms", y="share of requests" if measure == "ttft" else "")
        axes.set_title(LONG_NAMES[measure], fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(MOST_TICKS))
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.01)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 0.9, 0.99], ["0", "0.25", "0.5", "0.75", "0.9", "0.99"])
    # Below all three: a curve may be anywhere in them.
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def draw_load_over_time(figures: LoadFigures) -> Figure:
    """Return the arrivals of each second, and how many requests were under way; the warm-up is shaded."""
    figure = _figure(figures, height=6)
    above, below = figure.subplots(2, 1, sharex=True)
    everything = [[*before, *after] for before, after in zip(figures.warm_up, figures.results, strict=True)]
    due = [result.at_s for results in everything for result in results]
    if due:
        counts, edges = np.histogram(due, bins=np.arange(int(max(due)) + 2))
        above.stairs(counts, edges, fill=True, alpha=0.5, color=FAILED)
    above.axhline(figures.setup.plan.rate_per_s, color="black", linewidth=0.8, linestyle="--", label="rate asked for")
    for place, target in enumerate(figures.targets):
        times, under_way = concurrency(everything[place])
        line = {"color": COLOURS[place], "linestyle": LINES[place], "label": target.name}
        below.step(times, under_way, where="post", linewidth=1.2, **line)
    for axes in (above, below):
        if figures.setup.plan.warm_up_s:
            axes.axvspan(0, figures.setup.plan.warm_up_s, color="#f0e442", alpha=0.2, label="warm-up", zorder=0)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
    _label(above, x="", y="arrivals, requests/s")
    _label(below, x="seconds since the start", y="requests under way")
    _legend(above)
    _legend(below)
    return figure


def _figure(figures: LoadFigures, *, height: float, width: float = 9.0) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    label = figures.setup.label
    figure.suptitle(f"{label}\n{_titled(figures)}" if label else _titled(figures), fontsize=9)
    return figure


def _titled(figures: LoadFigures) -> str:
    # Two lines: one would be wider than the picture.
    return describe_plan(figures.setup.plan).replace("; ", "\n", 1)


def _milliseconds(results: Sequence[RequestResult], field: str) -> Floats:
    values = [getattr(result, field) for result in results if result.error is None]
    return np.sort([1000 * value for value in values if value is not None])


def _mark_limit(axes: Axes, limit_s: float | None) -> None:
    widest_ms = axes.get_xlim()[1]
    # One that is far away would squeeze the curves to nothing.
    if limit_s is None or 1000 * limit_s > FARTHEST_LIMIT * widest_ms:
        return
    limit_ms = 1000 * limit_s
    axes.axvline(limit_ms, color=OBJECTIVE, linewidth=1, linestyle="--")
    side: Literal["left", "right"] = "left" if limit_ms < widest_ms / 10 else "right"  # not over the axis
    axes.text(limit_ms, 0.02, f" objective, {limit_ms:g} ms ", rotation=90, ha=side, fontsize=8, color=OBJECTIVE)


def _label(axes: Axes, *, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(axes: Axes) -> None:
    axes.legend(loc="best", fontsize=8, framealpha=0.9)
