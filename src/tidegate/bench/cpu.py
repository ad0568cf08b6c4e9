"""CPU time of a process with all its children, as Linux counts it."""

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    ticks: int
    """Of the process and of the children it has waited for."""


def read_cpu_s(pid: int, *, proc: Path = PROC) -> float | None:
    """Return what a process and its children, living or ended, have used since they began; seconds of CPU.

    In steps of a clock tick, usually 10 ms. None when there is no such process.
    """
    stats: dict[int, _Stat] = {}
    for entry in proc.glob("[0-9]*"):
        try:
            stats[int(entry.name)] = _parse_stat((entry / "stat").read_text(errors="replace"))
        except OSError:
            continue  # ended since it was listed
    if pid not in stats:
        return None
    family = {pid}
    grown = True
    while grown:
        more = {child for child, stat in stats.items() if stat.parent in family} - family
        family |= more
        grown = bool(more)
    return sum(stats[member].ticks for member in family) / os.sysconf("SC_CLK_TCK")


def read_core_wait_s(*, proc: Path = PROC) -> float | None:
    """Return how long this process's first thread has waited for a core since it began; seconds.

    None where the system does not count it.
    """
    try:
        return int((proc / "self" / "schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def _parse_stat(text: str) -> _Stat:
    """Read /proc/PID/stat: after the name in brackets, which may hold anything, come state, parent and counts."""
    fields = text.rpartition(")")[2].split()
    return _Stat(parent=int(fields[1]), ticks=sum(map(int, fields[11:15])))
