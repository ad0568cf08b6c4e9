"""Rules on what moves while a server is watched."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tidegate.protocol.conformance.evidence import REQUIRED
from tidegate.protocol.conformance.finding import Finding, Level, Rule
from tidegate.protocol.signals import LoadSignals

FROZEN = Rule("values-frozen", Level.ERROR, "No signal moves while requests finish, though the server is not idle.")
IDLE = Rule("values-always-zero", Level.INFO, "All signals are 0 at each look while requests finish.")
NOTHING_FINISHED = Rule(
    "nothing-finished", Level.INFO, "No request is known to have finished while the server was watched."
)
LOST = Rule("scrapes-failed", Level.WARNING, "Some scrapes failed while the server was watched.")
RULES = (FROZEN, IDLE, NOTHING_FINISHED, LOST)

WATCHED = (*REQUIRED, "completions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One scrape of a server that is watched."""

    signals: LoadSignals
    completions: float | None
    """The engine's counter of finished requests; None: it publishes none."""

    def figure(self, name: str) -> float | None:
        """Return what it says of one of WATCHED."""
        value: float | None = self.completions if name == "completions" else getattr(self.signals, name)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """How one figure moved; None: it was never known."""

    name: str
    first: float | None
    last: float | None
    least: float | None
    most: float | None
    changes: int
    """How often it was another than at the look before."""


def movements(observations: Sequence[Observation]) -> list[Movement]:
    """Return how each of WATCHED moved."""
    moved = []
    for name in WATCHED:
        known = [value for one in observations if (value := one.figure(name)) is not None]
        moved.append(
            Movement(
                name=name,
                first=known[0] if known else None,
                last=known[-1] if known else None,
                least=min(known, default=None),
                most=max(known, default=None),
                changes=sum(before != after for before, after in itertools.pairwise(known)),
            )
        )
    return moved


def judge(moved: Sequence[Movement], *, looks: int, failed: int, watched_s: float) -> Iterator[Finding]:
    """Yield what the movements tell. `looks`: observations; `failed`: scrapes that gave none."""
    if failed:
        yield LOST.finding(
            f"{failed} of {failed + looks} scrapes failed within {watched_s:g} s", "Look into the server's log."
        )
    by_name = {movement.name: movement for movement in moved}
    counted = by_name["completions"]
    signals = [by_name[name] for name in REQUIRED if by_name[name].first is not None]
    if looks < 2 or not signals:
        return
    if not counted.changes:
        yield NOTHING_FINISHED.finding(
            f"no request finished within {watched_s:g} s: whether values are frozen cannot be told"
            if counted.first is not None
            else "the server counts no finished requests: whether values are frozen cannot be told"
        )
    elif not any(movement.changes for movement in signals):
        finished = f"while the counter of finished requests went from {counted.first:g} to {counted.last:g}"
        if all(movement.first == 0 for movement in signals):
            yield IDLE.finding(
                f"all signals were 0 at each of {looks} looks, {finished}: watch longer, under more load"
            )
        else:
            standing = ", ".join(f"{movement.name}={movement.first:g}" for movement in signals)
            yield FROZEN.finding(
                f"{standing} at each of {looks} looks, {finished}",
                "Look why the server does not renew its gauges; if its load is that steady, watch longer.",
            )
