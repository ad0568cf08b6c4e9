"""From an exposition to the load of the endpoint that wrote it.

Signals path: exposition → scan → **parse_signals** → LoadSignals → Pool row → filters and scorers.

A server may publish a signal as several series, one for each model or rank. Counts are summed; utilization is that of
the fullest; `num_blocks` is summed over models, but of the ranks of one model the largest counts (each vLLM rank
publishes the total of all); `block_size` is the smallest.

What a server cannot mean, it did not say: a count that is negative, fractional, infinite, NaN or beyond 2**53, or a
utilization that is NaN or infinite. One such series makes a sum unknown, since a sum without it would understate the
load. A finite utilization outside [0, 1] is clamped; that it might be in percent is never guessed.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from tidegate.protocol.composites import used_fraction, waiting_requests
from tidegate.protocol.engines import (
    EngineMapping,
    LoraLabels,
    SeriesLabel,
    SeriesValue,
    Source,
    WaitingRequests,
)
from tidegate.protocol.errors import ScrapeError
from tidegate.protocol.exposition import Sample, mentions, scan
from tidegate.protocol.selectors import Selector
from tidegate.protocol.signals import LoadSignals, LoraSignals

_LARGEST_COUNT = 2.0**53
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one series says of a signal; NaN when nothing that can be meant."""

    labels: Mapping[str, str]
    value: float


def parse_signals(exposition: bytes, engine: EngineMapping, *, observed_at: float) -> LoadSignals:
    """Return what an exposition says of the load of its server.

    A signal that the exposition lacks is None: servers leave gauges out until they have something to say.

    Args:
        observed_at: when the exposition was read; seconds, monotonic.

    Raises:
        ScrapeError: the bytes hold nothing of this engine, or one of the lines needed is malformed.
    """
    samples = scan(exposition, engine.families)
    if not samples and not mentions(exposition, engine.prefix):
        raise ScrapeError(f"holds no metrics of engine {engine.name}: no name begins with {engine.prefix!r}")
    return LoadSignals(
        queued_requests=_first(engine.queued_requests, samples, _sum),
        running_requests=_first(engine.running_requests, samples, _sum),
        kv_utilization=_first(engine.kv_utilization, samples, _fullest),
        block_size=_first(engine.block_size, samples, _smallest),
        num_blocks=_first(engine.num_blocks, samples, lambda readings: _sum_of_models(readings, engine.model_labels)),
        lora=_newest_lora(engine.lora, samples) if engine.lora else None,
        observed_at=observed_at,
    )


def _first(
    sources: Iterable[Source], samples: list[Sample], combine: Callable[[list[_Reading]], _T | None]
) -> _T | None:
    """Combine the readings of the first source that says something."""
    for source in sources:
        combined = combine(list(_readings(source, samples)))
        if combined is not None:
            return combined
    return None


def _readings(source: Source, samples: list[Sample]) -> Iterator[_Reading]:
    match source:
        case SeriesValue(selector=selector):
            for sample in _select(selector, samples):
                yield _Reading(sample.labels, sample.value)
        case SeriesLabel(selector=selector, label=label):
            for sample in _select(selector, samples):
                yield _Reading(sample.labels, _parse_count(sample.labels.get(label, "")))
        case WaitingRequests(active=active, scheduled=scheduled):
            yield from _pairs(active, scheduled, samples, waiting_requests)
        case _:
            yield from _pairs(source.used, source.maximum, samples, used_fraction)


def _select(selector: Selector, samples: list[Sample]) -> Iterator[Sample]:
    for sample in samples:
        if sample.family == selector.family and selector.matches(sample.labels):
            yield sample


def _pairs(
    left: Selector, right: Selector, samples: list[Sample], composite: Callable[[int, int], float]
) -> Iterator[_Reading]:
    """Compose the counts of two selectors that belong together: all their other labels are equal."""
    partners = {_other_labels(right, sample): sample.value for sample in _select(right, samples)}
    for sample in _select(left, samples):
        partner = partners.get(_other_labels(left, sample), math.nan)
        known = _is_count(sample.value) and _is_count(partner)
        yield _Reading(sample.labels, composite(int(sample.value), int(partner)) if known else math.nan)


def _other_labels(selector: Selector, sample: Sample) -> frozenset[tuple[str, str]]:
    return frozenset(sample.labels.items()).difference(selector.labels)


def _sum(readings: list[_Reading]) -> int | None:
    if not readings or not all(_is_count(reading.value) for reading in readings):
        return None
    return sum(int(reading.value) for reading in readings)


def _fullest(readings: list[_Reading]) -> float | None:
    finite = [reading.value for reading in readings if math.isfinite(reading.value)]
    return min(1.0, max(0.0, *finite)) if finite else None


def _smallest(readings: list[_Reading]) -> int | None:
    sizes = [int(reading.value) for reading in readings if _is_count(reading.value) and reading.value > 0]
    return min(sizes, default=None)


def _sum_of_models(readings: list[_Reading], model_labels: tuple[str, ...]) -> int | None:
    largest: dict[tuple[str | None, ...], int] = {}
    for reading in readings:
        if _is_count(reading.value):
            model = tuple(reading.labels.get(label) for label in model_labels)
            largest[model] = max(largest.get(model, 0), int(reading.value))
    return sum(largest.values()) if largest else None


def _newest_lora(source: LoraLabels, samples: list[Sample]) -> LoraSignals | None:
    dated = [sample for sample in _select(source.selector, samples) if math.isfinite(sample.value)]
    if not dated:
        return None
    labels = max(dated, key=lambda sample: sample.value).labels
    fitting = _parse_count(labels.get(source.max_adapters, ""))
    return LoraSignals(
        running=_parse_names(labels.get(source.running, "")),
        waiting=_parse_names(labels.get(source.waiting, "")),
        max_adapters=int(fitting) if _is_count(fitting) else None,
    )


def _parse_names(comma_list: str) -> frozenset[str]:
    return frozenset(name for part in comma_list.split(",") if (name := part.strip()))


def _parse_count(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() else math.nan


def _is_count(value: float) -> bool:
    return 0 <= value <= _LARGEST_COUNT and value == int(value)
