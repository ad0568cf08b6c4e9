"""Rules on the types that families declare."""

from collections.abc import Iterator

from tidegate.protocol.conformance.evidence import OPTIONAL, REQUIRED, Evidence
from tidegate.protocol.conformance.finding import Finding, Level, Rule
from tidegate.protocol.engines import LoraLabels, SeriesLabel, Source, selectors

WRONG_TYPE = Rule("wrong-type", Level.ERROR, "A signal's family is declared as something other than a gauge.")
UNDECLARED = Rule("type-undeclared", Level.WARNING, "A signal's family declares no type.")
RULES = (WRONG_TYPE, UNDECLARED)

_UNTYPED = ("untyped", "unknown")


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yield each family of a signal once, if its type does not fit."""
    told: set[str] = set()
    for signal in (*REQUIRED, *OPTIONAL):
        for source in evidence.sources(signal):
            yield from _of_source(evidence, signal, source, told)
    if evidence.engine.lora is not None:
        yield from _of_source(evidence, "lora", evidence.engine.lora, told)
    for signal, selector in evidence.engine.mistaken:
        declared = _declared(evidence, selector.family)
        if signal not in evidence.load.origins and declared not in ("gauge", ""):
            yield WRONG_TYPE.finding(
                f"{signal}: {selector}, which some pickers read for it, is a {declared}, and {signal} is a gauge",
                "Do not let a picker read it: it only ever grows.",
            )


def _of_source(evidence: Evidence, signal: str, source: Source | LoraLabels, told: set[str]) -> Iterator[Finding]:
    fitting = ("gauge", "info") if isinstance(source, SeriesLabel | LoraLabels) else ("gauge",)
    for selector in selectors(source):
        family = selector.family
        if family in told or not any(True for _ in evidence.select(selector)):
            continue
        told.add(family)
        declared = _declared(evidence, family)
        if not declared or declared in _UNTYPED:
            yield UNDECLARED.finding(
                f"{signal}: {family} has no type", f"Write `# TYPE {family} gauge` before its samples."
            )
        elif declared not in fitting:
            yield WRONG_TYPE.finding(
                f"{signal}: {family} is a {declared} where a gauge is needed",
                f"Publish what is so now as a gauge; a {declared} tells what was so far.",
            )


def _declared(evidence: Evidence, name: str) -> str:
    """Return the type of the family of a sample, if it has any samples or none; empty: none is declared."""
    return evidence.reading.types.get(evidence.reading.family(name), "")
