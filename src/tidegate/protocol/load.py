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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tidegate.protocol.engines import EngineMapping, LoraLabels, Source
from tidegate.protocol.errors import ScrapeError
from tidegate.protocol.exposition import Sample, mentions, scan
from tidegate.protocol.readings import Reading, is_count, parse_count, readings, select
from tidegate.protocol.signals import LoadSignals, LoraSignals

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a signal came from."""

    source: Source | LoraLabels
    readings: Sequence[Reading]
    """What each of its series says, in the order of the exposition; of LoRA adapters, nothing."""


@dataclass(frozen=True, slots=True)
class Load:
    """What an exposition says, and where it says so."""

    signals: LoadSignals
    origins: Mapping[str, Origin]
    """By the name of the signal; those that are None have none."""


def parse_signals(exposition: bytes, engine: EngineMapping, *, observed_at: float) -> LoadSignals:
    """Return what an exposition says of the load of its server.

    A signal that the exposition lacks is None: servers leave gauges out until they have something to say.

    Args:
        observed_at: when the exposition was read; seconds, monotonic.

    Raises:
        ScrapeError: the bytes hold nothing of this engine, or one of the lines needed is malformed.
    """
    return parse_load(exposition, engine, observed_at=observed_at).signals


def parse_load(exposition: bytes, engine: EngineMapping, *, observed_at: float) -> Load:
    """Return the same as `parse_signals`, with the origin of each signal.

    Raises:
        ScrapeError: as `parse_signals`.
    """
    samples = scan(exposition, engine.families)
    if not samples and not mentions(exposition, engine.prefix):
        raise ScrapeError(f"holds no metrics of engine {engine.name}: no name begins with {engine.prefix!r}")
    origins: dict[str, Origin] = {}

    def first(signal: str, sources: Iterable[Source], combine: Callable[[Sequence[Reading]], _T | None]) -> _T | None:
        """Combine the readings of the first source that says something."""
        for source in sources:
            found = list(readings(source, samples))
            combined = combine(found)
            if combined is not None:
                origins[signal] = Origin(source, found)
                return combined
        return None

    lora = _newest_lora(engine.lora, samples) if engine.lora else None
    if engine.lora is not None and lora is not None:
        origins["lora"] = Origin(engine.lora, ())
    signals = LoadSignals(
        queued_requests=first("queued_requests", engine.queued_requests, _sum),
        running_requests=first("running_requests", engine.running_requests, _sum),
        kv_utilization=first("kv_utilization", engine.kv_utilization, _fullest),
        block_size=first("block_size", engine.block_size, _smallest),
        num_blocks=first("num_blocks", engine.num_blocks, lambda found: _sum_of_models(found, engine.model_labels)),
        lora=lora,
        observed_at=observed_at,
    )
    return Load(signals, origins)


def _sum(readings: Sequence[Reading]) -> int | None:
    if not readings or not all(is_count(reading.value) for reading in readings):
        return None
    return sum(int(reading.value) for reading in readings)


def _fullest(readings: Sequence[Reading]) -> float | None:
    finite = [reading.value for reading in readings if math.isfinite(reading.value)]
    return min(1.0, max(0.0, *finite)) if finite else None


def _smallest(readings: Sequence[Reading]) -> int | None:
    sizes = [int(reading.value) for reading in readings if is_count(reading.value) and reading.value > 0]
    return min(sizes, default=None)


def _sum_of_models(readings: Sequence[Reading], model_labels: tuple[str, ...]) -> int | None:
    largest: dict[tuple[str | None, ...], int] = {}
    for reading in readings:
        if is_count(reading.value):
            model = tuple(reading.labels.get(label) for label in model_labels)
            largest[model] = max(largest.get(model, 0), int(reading.value))
    return sum(largest.values()) if largest else None


def _newest_lora(source: LoraLabels, samples: list[Sample]) -> LoraSignals | None:
    dated = [sample for sample in select(source.selector, samples) if math.isfinite(sample.value)]
    if not dated:
        return None
    labels = max(dated, key=lambda sample: sample.value).labels
    fitting = parse_count(labels.get(source.max_adapters, ""))
    return LoraSignals(
        running=_parse_names(labels.get(source.running, "")),
        waiting=_parse_names(labels.get(source.waiting, "")),
        max_adapters=int(fitting) if is_count(fitting) else None,
    )


def _parse_names(comma_list: str) -> frozenset[str]:
    return frozenset(name for part in comma_list.split(",") if (name := part.strip()))
