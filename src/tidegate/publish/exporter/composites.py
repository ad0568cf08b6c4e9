"""A server's exposition with the composite series that it lacks.

Publishing path: exposition → scan → composites of each pair of series → **the exposition with them put in**.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from tidegate.protocol.engines import EngineMapping, SeriesValue, Source, UsedFraction, WaitingRequests
from tidegate.protocol.exposition import Sample, scan
from tidegate.protocol.readings import readings, select
from tidegate.publish.prometheus import render_sample


def add_composites(exposition: bytes, engine: EngineMapping) -> bytes:
    """Return the exposition, byte for byte, with the missing composites behind the last series of their family.

    They are composed of each pair of series that belongs together (one model, one rank), and carry its other labels.
    What is there already, or lacks an ingredient, is left as it is.

    Raises:
        ScrapeError: a line of the families needed is malformed.
    """
    samples = scan(exposition, engine.families)
    lines: defaultdict[str, list[str]] = defaultdict(list)
    for sources in (engine.queued_requests, engine.running_requests, engine.kv_utilization):
        for sample in _missing(sources, samples):
            lines[sample.family].append(render_sample(sample.family, sample.labels, sample.value))
    for family, added in lines.items():
        exposition = _insert(exposition, family, "".join(added).encode())
    return exposition


def _missing(sources: Sequence[Source], samples: Sequence[Sample]) -> Iterator[Sample]:
    """Yield the composite series that the ingredients give and the exposition does not."""
    if not sources or not isinstance(sources[0], SeriesValue):
        return
    selector = sources[0].selector
    there = {frozenset(sample.labels.items()) for sample in select(selector, samples)}
    for source in sources:
        if not isinstance(source, WaitingRequests | UsedFraction):
            continue
        for reading in readings(source, samples):
            labels = {**reading.labels, **dict(selector.labels)}
            if not math.isnan(reading.value) and frozenset(labels.items()) not in there:
                there.add(frozenset(labels.items()))  # An ingredient that occurs twice is no reason to.
                yield Sample(selector.family, labels, reading.value)


def _insert(exposition: bytes, family: str, lines: bytes) -> bytes:
    """Put lines behind the last one of their family: the format wants all series of a family together."""
    *_, last = re.finditer(rb"^[ \t]*+" + family.encode() + rb"[ \t{].*$", exposition, re.MULTILINE)
    newline = b"" if last.end() < len(exposition) else b"\n"
    end = last.end() + 1
    return exposition[:end] + newline + lines + exposition[end:]
