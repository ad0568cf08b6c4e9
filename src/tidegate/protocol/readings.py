"""What single series say of a signal, before they are combined into one figure for the server.

Signals path: Sample → **Reading** → LoadSignals. The exporter writes a server's missing composites from them.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tidegate.protocol.composites import used_fraction, waiting_requests
from tidegate.protocol.engines import SeriesLabel, SeriesValue, Source, WaitingRequests
from tidegate.protocol.exposition import Sample
from tidegate.protocol.selectors import Selector

_LARGEST_COUNT = 2.0**53


@dataclass(frozen=True, slots=True)
class Reading:
    """What one series says of a signal, or two from which it is composed."""

    labels: Mapping[str, str]
    """Those of the series; of two, those of the first."""
    value: float
    """NaN when nothing that can be meant."""


def readings(source: Source, samples: Sequence[Sample]) -> Iterator[Reading]:
    """Yield what each series of a source says, in the order of the exposition."""
    match source:
        case SeriesValue(selector=selector):
            for sample in select(selector, samples):
                yield Reading(sample.labels, sample.value)
        case SeriesLabel(selector=selector, label=label):
            for sample in select(selector, samples):
                yield Reading(sample.labels, parse_count(sample.labels.get(label, "")))
        case WaitingRequests(active=active, scheduled=scheduled):
            yield from _pairs(active, scheduled, samples, waiting_requests)
        case _:
            yield from _pairs(source.used, source.maximum, samples, used_fraction)


def select(selector: Selector, samples: Sequence[Sample]) -> Iterator[Sample]:
    """Yield the samples of a selector, in their order."""
    for sample in samples:
        if sample.family == selector.family and selector.matches(sample.labels):
            yield sample


def _pairs(
    left: Selector, right: Selector, samples: Sequence[Sample], composite: Callable[[int, int], float]
) -> Iterator[Reading]:
    """Compose the counts of two selectors that belong together: all their other labels are equal."""
    partners = {other_labels(right, sample): sample.value for sample in select(right, samples)}
    for sample in select(left, samples):
        partner = partners.get(other_labels(left, sample), math.nan)
        known = is_count(sample.value) and is_count(partner)
        yield Reading(sample.labels, composite(int(sample.value), int(partner)) if known else math.nan)


def other_labels(selector: Selector, sample: Sample) -> frozenset[tuple[str, str]]:
    """Return what a series has besides the labels of its selector: equal where series belong together."""
    return frozenset(sample.labels.items()).difference(selector.labels)


def parse_count(text: str) -> float:
    """Return the count in a label's text; NaN when it is none."""
    return float(text) if text.isascii() and text.isdigit() else math.nan


def is_count(value: float) -> bool:
    """Return whether a server can mean this as a count."""
    return 0 <= value <= _LARGEST_COUNT and value == int(value)
