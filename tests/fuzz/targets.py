"""What is fuzzed: each target takes any bytes, and raises when something else happens than was declared.

Both the tests (hypothesis) and `make fuzz` (atheris, in run.py) call these.
"""

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from statistics_rows import row_of

from tidegate.protocol.conformance.evidence import Answer
from tidegate.protocol.conformance.finding import Level
from tidegate.protocol.conformance.orca import parse_orca
from tidegate.protocol.conformance.strict import read_strictly
from tidegate.protocol.conformance.verdict import judge
from tidegate.protocol.engines import ENGINES, detect_engine
from tidegate.protocol.errors import ScrapeError
from tidegate.protocol.exposition import Sample, scan
from tidegate.protocol.load import parse_signals
from tidegate.publish.exporter.iterations import IterationStatistics
from tidegate.publish.statistics import BatchManagerStatistics, parse_statistics

REPEATED_BYTES = 1_000_000
"""To this size an input is repeated: what takes quadratic time then takes hours."""
REPEATED_S = 5.0
"""Limit on an input of that size, traced as it is while fuzzed; the slowest takes a tenth."""


class FuzzError(AssertionError):
    """Something else happened than was declared."""


def fuzz_signals(data: bytes) -> None:
    """The signals path: any bytes give signals in their ranges, or a ScrapeError."""
    try:
        detected = detect_engine(data)
    except ScrapeError:
        detected = None
    for engine in ENGINES.values() if detected is None else (detected,):
        try:
            signals = parse_signals(data, engine, observed_at=0.0)
        except ScrapeError:
            continue
        counts = (signals.queued_requests, signals.running_requests, signals.num_blocks)
        if not all(count is None or count >= 0 for count in counts):
            raise FuzzError(f"a count below 0: {signals}")
        if signals.block_size is not None and signals.block_size <= 0:
            raise FuzzError(f"a block without tokens: {signals}")
        if signals.kv_utilization is not None and not 0 <= signals.kv_utilization <= 1:
            raise FuzzError(f"a utilization beyond its range: {signals}")


def fuzz_readers(data: bytes) -> None:
    """The scanner and the strict reader: what breaks no rule, both read alike; what one refuses, so does the other."""
    for openmetrics in (False, True):
        reading = read_strictly(data, openmetrics=openmetrics)
        families = {sample.family for sample in reading.samples}
        try:
            scanned = scan(data, sorted(families))
        except ScrapeError:
            continue  # Of a malformed line of the family, or of more than is read.
        if reading.problem_count == 0 and list(map(_comparable, scanned)) != list(map(_comparable, reading.samples)):
            raise FuzzError(f"read as {scanned[:9]} and {reading.samples[:9]}")


def fuzz_rules(data: bytes) -> None:
    """The rules: any bytes are judged, each by the rules for one engine."""
    engine = list(ENGINES.values())[len(data) % len(ENGINES)]
    answer = Answer(body=data, content_type="text/plain", took_s=0.0)
    for finding in judge(answer, engine).findings:
        if not finding.message or not finding.message.isprintable():
            raise FuzzError(f"no line for a person: {finding}")
        if finding.level is not Level.INFO and not finding.fix:
            raise FuzzError(f"no way out: {finding}")


def fuzz_statistics(data: bytes) -> None:
    """Iteration statistics: any bytes give a load or a ScrapeError, and any mapping gives statistics."""
    statistics = IterationStatistics()
    for body in (data, b"[]"):
        try:
            statistics.parse(body, 7.0)
        except ScrapeError:
            continue
    figures = parse_statistics(row_of(data))
    for field in BatchManagerStatistics.__dataclass_fields__:
        value = getattr(figures, field)
        if value is not None and not value >= 0:
            raise FuzzError(f"{field} below 0: {figures}")


def fuzz_orca(data: bytes) -> None:
    """Load headers: any text gives figures or a ValueError."""
    try:
        parse_orca(data.decode("latin-1"))
    except ValueError:
        return


TARGETS: Mapping[str, Callable[[bytes], None]] = MappingProxyType(
    {
        "signals": fuzz_signals,
        "readers": fuzz_readers,
        "rules": fuzz_rules,
        "statistics": fuzz_statistics,
        "orca": fuzz_orca,
    }
)


def check_time(target: Callable[[bytes], None], data: bytes) -> None:
    """Raise FuzzError when the input takes too long where it is repeated over and over."""
    if not data:
        return
    repeated = data * (REPEATED_BYTES // len(data))
    started_at = time.perf_counter()
    target(repeated)
    took_s = time.perf_counter() - started_at
    if took_s > REPEATED_S:
        raise FuzzError(f"{len(repeated)} bytes took {took_s:.1f} s")


def _comparable(sample: Sample) -> tuple[str, dict[str, str], str]:
    return sample.family, sample.labels, repr(sample.value + 0.0)
