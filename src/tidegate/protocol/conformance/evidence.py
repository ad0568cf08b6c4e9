"""What one look at a server gave: all that the rules judge."""

from collections.abc import Iterator
from dataclasses import dataclass

from tidegate.protocol.conformance.strict import StrictReading, read_strictly
from tidegate.protocol.engines import EngineMapping, Source
from tidegate.protocol.errors import ScrapeError
from tidegate.protocol.exposition import Sample
from tidegate.protocol.load import Load, parse_load
from tidegate.protocol.readings import select
from tidegate.protocol.selectors import Selector
from tidegate.protocol.signals import LoadSignals

REQUIRED = ("queued_requests", "running_requests", "kv_utilization")
"""Signals that every server must publish. Source: GIE proposal 003."""
OPTIONAL = ("block_size", "num_blocks")
"""Signals that a server may publish, besides its LoRA adapters."""
SIGNALS = (*REQUIRED, *OPTIONAL, "lora")

OPENMETRICS_TYPE = "application/openmetrics-text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One GET of an exposition."""

    body: bytes
    content_type: str
    """In lower case; empty: the server did not say."""
    took_s: float
    """From the request to the last byte, over an open connection; seconds."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """An answer, and what was read from it."""

    answer: Answer
    engine: EngineMapping
    reading: StrictReading
    load: Load
    unreadable: str
    """Why the signals path cannot read the exposition; empty: it can."""

    def select(self, selector: Selector) -> Iterator[Sample]:
        """Yield the samples of a selector, in their order."""
        return select(selector, self.reading.samples)

    def sources(self, signal: str) -> tuple[Source, ...]:
        """Return where the engine may publish a signal, the newest first; not for LoRA adapters."""
        sources: tuple[Source, ...] = getattr(self.engine, signal)
        return sources


def gather(answer: Answer, engine: EngineMapping) -> Evidence:
    """Read an answer in both ways. Never raises: what cannot be read is evidence, too."""
    openmetrics = answer.content_type.startswith(OPENMETRICS_TYPE)
    reading = read_strictly(answer.body, openmetrics=openmetrics)
    unreadable = ""
    try:
        load = parse_load(answer.body, engine, observed_at=0.0)
    except ScrapeError as error:
        load, unreadable = Load(LoadSignals(observed_at=0.0), {}), error.problem
    return Evidence(answer, engine, reading, load, unreadable)
