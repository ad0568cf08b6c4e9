"""Rules on what moves while a server is watched."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tidegate.protocol.conformance.evidence import REQUIRED, Evidence
from tidegate.protocol.conformance.finding import Finding, Level, Rule
from tidegate.protocol.conformance.presence import finished
from tidegate.protocol.signals import LoadSignals

FROZEN = Rule("values-frozen", Level.WARNING, "No gauge moves while requests finish, though the server is not idle.")
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
    pulse: int
    """Another number whenever a gauge of the engine has another value."""

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


def observe(evidence: Evidence) -> Observation:
    """Return what one look at a server gave."""
    prefix, reading = evidence.engine.prefix, evidence.reading
    gauges = tuple(
        (sample.family, frozenset(sample.labels.items()), repr(sample.value))
        for sample in reading.samples
        if sample.family.startswith(prefix) and reading.types.get(sample.family) == "gauge"
    )
    return Observation(signals=evidence.load.signals, completions=finished(evidence), pulse=hash(gauges))


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


def judge(observations: Sequence[Observation], *, failed: int, watched_s: float) -> Iterator[Finding]:
    """Yield what the observations tell. `failed`: scrapes that gave none."""
    looks = len(observations)
    if failed:
        yield LOST.finding(
            f"{failed} of {failed + looks} scrapes failed within {watched_s:g} s", "Look into the server's log."
        )
    *moved, counted = movements(observations)
    signals = [movement for movement in moved if movement.first is not None]
    if looks < 2 or not signals:
        return
    if counted.first is None:
        yield NOTHING_FINISHED.finding(
            "the server counts no finished requests: whether values are frozen cannot be told"
        )
    elif not counted.changes:
        yield NOTHING_FINISHED.finding(
            f"no request finished within {watched_s:g} s: whether values are frozen cannot be told"
        )
    elif len({one.pulse for one in observations}) == 1:
        yield _standing(
            signals, looks, f"the counter of finished requests went from {counted.first:g} to {counted.last:g}"
        )


def _standing(signals: Sequence[Movement], looks: int, meanwhile: str) -> Finding:
    """Return what it means that no gauge moved: a load that is steady to the last block looks the same."""
    if all(movement.first == 0 for movement in signals):
        return IDLE.finding(
            f"all signals were 0 at each of {looks} looks, while {meanwhile}: watch longer, under more load"
        )
    values = ", ".join(f"{movement.name}={movement.first:g}" for movement in signals)
    return FROZEN.finding(
        f"{values} at each of {looks} looks, and no other gauge moved, while {meanwhile}",
        "If its load is not that steady, look why the server does not renew its gauges; watch longer to be sure.",
    )
