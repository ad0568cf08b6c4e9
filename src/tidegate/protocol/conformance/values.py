"""Rules on the values of signals: what a server cannot mean."""

import math
from collections.abc import Iterator

from tidegate.protocol.conformance.evidence import OPTIONAL, Evidence
from tidegate.protocol.conformance.finding import Finding, Level, Rule
from tidegate.protocol.conformance.sources import render_source
from tidegate.protocol.engines import SeriesLabel, selectors
from tidegate.protocol.readings import is_count, readings
from tidegate.protocol.selectors import Selector

COUNT_INVALID = Rule(
    "count-invalid", Level.ERROR, "Queued or running requests are negative, fractional, infinite or NaN."
)
OUT_OF_RANGE = Rule("utilization-out-of-range", Level.ERROR, "KV-cache utilization is not within 0 and 1.")
IN_PERCENT = Rule("utilization-in-percent", Level.ERROR, "KV-cache utilization looks like percent.")
OPTIONAL_INVALID = Rule("optional-value-invalid", Level.WARNING, "The size or number of blocks is no count.")
RULES = (COUNT_INVALID, OUT_OF_RANGE, IN_PERCENT, OPTIONAL_INVALID)

_LEAST_PERCENT = 1.5
"""Rounding explains what is a little above 1."""


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yield the values that cannot be meant, at most one finding for each selector and rule."""
    for signal in ("queued_requests", "running_requests"):
        for source in evidence.sources(signal):
            for selector in selectors(source):
                yield from _counts(evidence, signal, selector)
    for source in evidence.sources("kv_utilization"):
        if len(selectors(source)) == 1:
            yield from _utilization(evidence, selectors(source)[0])
        else:
            for selector in selectors(source):
                yield from _counts(evidence, "kv_utilization", selector)
    for signal in OPTIONAL:
        yield from _optional(evidence, signal)


def _counts(evidence: Evidence, signal: str, selector: Selector) -> Iterator[Finding]:
    bad = [sample.value for sample in evidence.select(selector) if not is_count(sample.value)]
    if bad:
        yield COUNT_INVALID.finding(
            f"{signal}: {selector} is {_number(bad[0])}, which is no count, so the signal is unknown",
            "Publish a whole number of at least 0, or no series at all.",
        )


def _utilization(evidence: Evidence, selector: Selector) -> Iterator[Finding]:
    values = [sample.value for sample in evidence.select(selector)]
    percent = [value for value in values if _LEAST_PERCENT < value <= 100]
    other = [value for value in values if not 0 <= value <= 1 and value not in percent]
    if percent:
        yield IN_PERCENT.finding(
            f"kv_utilization: {selector} is {_number(percent[0])}: readers take all above 1 for a full cache",
            "Publish used / max blocks, from 0 to 1.",
        )
    if other:
        yield OUT_OF_RANGE.finding(
            f"kv_utilization: {selector} is {_number(other[0])}, not within 0 and 1",
            "Publish used / max blocks, from 0 to 1.",
        )


def _optional(evidence: Evidence, signal: str) -> Iterator[Finding]:
    least = 1 if signal == "block_size" else 0
    for source in evidence.sources(signal):
        for reading in readings(source, evidence.reading.samples):
            if is_count(reading.value) and reading.value >= least:
                continue
            text = reading.labels.get(source.label) if isinstance(source, SeriesLabel) else _number(reading.value)
            if text is not None:
                yield OPTIONAL_INVALID.finding(
                    f"{signal}: {render_source(source)} is {text[:40]!r}, which is no count",
                    f"Publish a whole number of at least {least}, or nothing.",
                )
                break


def _number(value: float) -> str:
    return f"{value:g}" if math.isfinite(value) else str(value)
