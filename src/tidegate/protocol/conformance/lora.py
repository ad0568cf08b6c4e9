"""Rules on LoRA adapters in the labels of an info series."""

from collections.abc import Iterator

from tidegate.protocol.conformance.evidence import Evidence
from tidegate.protocol.conformance.finding import Finding, Level, Rule
from tidegate.protocol.engines import LoraLabels
from tidegate.protocol.exposition import Sample
from tidegate.protocol.readings import is_count, parse_count

MALFORMED = Rule(
    "lora-malformed",
    Level.ERROR,
    "A series of LoRA adapters lacks a label, its limit is no count, or its value no time.",
)
RULES = (MALFORMED,)

_ANY_TIME_SINCE_S = 1e9
"""Seconds since the Unix epoch; 2001."""
_ANY_TIME_UNTIL_S = 1e11


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yield the first series that is malformed, with the count of the others."""
    source = evidence.engine.lora
    if source is None:
        return
    problems = [problem for sample in evidence.select(source.selector) if (problem := _problem(source, sample))]
    if problems:
        more = f", and {len(problems) - 1} more such series" if len(problems) > 1 else ""
        yield MALFORMED.finding(
            f"lora: {source.selector}: {problems[0]}{more}",
            f"Publish labels {source.running}, {source.waiting} (comma-separated) and {source.max_adapters} (a count), "
            "with the time of the last update as the value.",
        )


def _problem(source: LoraLabels, sample: Sample) -> str:
    missing = [name for name in (source.running, source.waiting, source.max_adapters) if name not in sample.labels]
    if missing:
        return f"no label {', '.join(missing)}"
    limit = sample.labels[source.max_adapters]
    if not is_count(parse_count(limit)):
        return f"{source.max_adapters} is {limit[:40]!r}, which is no count"
    for name in (source.running, source.waiting):
        names = sample.labels[name]
        if names.strip() and not all(part.strip() for part in names.split(",")):
            return f"{name} is {names[:40]!r}, with a name that is empty"
    if not _ANY_TIME_SINCE_S <= sample.value <= _ANY_TIME_UNTIL_S:
        return f"its value {sample.value:g} is no time in seconds since 1970"
    return ""
