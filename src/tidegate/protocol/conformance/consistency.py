"""Rules on composites that must agree with their ingredients, series by series.

An exposition may have been written while the server changed its gauges one after the other, so what does not agree
counts only if the next scrape says it again: `TORN_BY_CHANCE`.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from tidegate.protocol.composites import used_fraction, waiting_requests
from tidegate.protocol.conformance.evidence import Evidence
from tidegate.protocol.conformance.finding import Finding, Level, Rule
from tidegate.protocol.engines import SeriesValue, UsedFraction, WaitingRequests
from tidegate.protocol.readings import is_count, other_labels
from tidegate.protocol.selectors import Selector

WAITING = Rule("waiting-inconsistent", Level.ERROR, "Fewer requests wait than active minus scheduled.")
OUTSIDE = Rule(
    "waiting-exceeds-active", Level.INFO, "More requests wait than active minus scheduled: some wait outside active."
)
FRACTION = Rule("fraction-inconsistent", Level.ERROR, "The used fraction of the KV cache is not used by max blocks.")
BLOCKS = Rule("blocks-inconsistent", Level.ERROR, "Used and free KV-cache blocks are not max blocks together.")
RULES = (WAITING, OUTSIDE, FRACTION, BLOCKS)
TORN_BY_CHANCE = frozenset(rule.id for rule in RULES)

_TOLERANCE = 0.001
"""Of a fraction: some servers round it."""


class _Joined(NamedTuple):
    """Counts whose series differ in nothing but the labels of their selectors."""

    model: str
    """Those other labels, as text."""
    composite: float
    left: int
    right: int


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yield the composites that are not what their ingredients make; at most one finding for each rule."""
    engine = evidence.engine
    for source in engine.queued_requests:
        if isinstance(source, WaitingRequests) and isinstance(engine.queued_requests[0], SeriesValue):
            published = engine.queued_requests[0].selector
            yield from _waiting(list(_join(evidence, published, source.active, source.scheduled)))
    for source in engine.kv_utilization:
        if not isinstance(source, UsedFraction):
            continue
        if isinstance(engine.kv_utilization[0], SeriesValue):
            published = engine.kv_utilization[0].selector
            yield from _fraction(list(_join(evidence, published, source.used, source.maximum)))
        if engine.free_blocks is not None:
            yield from _blocks(list(_join(evidence, engine.free_blocks, source.used, source.maximum)))


def _waiting(joined: list[_Joined]) -> Iterator[Finding]:
    """Requests may wait outside active, so more than active minus scheduled can be right, less cannot."""
    for one in joined:
        least = waiting_requests(one.left, one.right)
        if one.composite < least:
            yield WAITING.finding(
                f"queued_requests: waiting is {one.composite:g}, but active - scheduled is {one.left} - {one.right} = "
                f"{least}{one.model}",
                "Compute waiting from the same iteration as its ingredients.",
            )
            break
    for one in joined:
        least = waiting_requests(one.left, one.right)
        if one.composite > least:
            yield OUTSIDE.finding(
                f"queued_requests: waiting is {one.composite:g}, and active - scheduled is {least}{one.model}: right "
                f"if {one.composite - least:g} of them wait outside active"
            )
            break


def _fraction(joined: list[_Joined]) -> Iterator[Finding]:
    for one in joined:
        expected = used_fraction(one.left, one.right)
        if abs(one.composite - expected) > _TOLERANCE:
            yield FRACTION.finding(
                f"kv_utilization: the fraction is {one.composite:g}, but used / max is {one.left} / {one.right} = "
                f"{expected:.3g}{one.model}",
                "Publish used / max, from the same iteration.",
            )
            return


def _blocks(joined: list[_Joined]) -> Iterator[Finding]:
    for one in joined:
        if one.composite + one.left != one.right:
            yield BLOCKS.finding(
                f"KV-cache blocks: {one.left} used + {one.composite:g} free are not {one.right} max{one.model}",
                "Publish the three from the same iteration.",
            )
            return


def _join(evidence: Evidence, published: Selector, left: Selector, right: Selector) -> Iterator[_Joined]:
    """Yield each series of `published` with its two ingredients, where these are counts."""
    parts = [
        {other_labels(selector, sample): sample.value for sample in evidence.select(selector)}
        for selector in (left, right)
    ]
    for sample in evidence.select(published):
        others = other_labels(published, sample)
        values = [part[others] for part in parts if others in part]
        if len(values) == 2 and all(map(is_count, values)) and math.isfinite(sample.value):
            model = ",".join(f"{name}={value}" for name, value in sorted(others))
            yield _Joined(f" ({model})" if model else "", sample.value, int(values[0]), int(values[1]))
