"""Rules on which signals are there, and under which names."""

import math
from collections.abc import Iterator

from tidegate.protocol.conformance.evidence import OPTIONAL, REQUIRED, Evidence
from tidegate.protocol.conformance.finding import Finding, Level, Rule
from tidegate.protocol.conformance.sources import render_source
from tidegate.protocol.engines import SeriesLabel, SeriesValue, selectors

MISSING = Rule("signal-missing", Level.ERROR, "A required signal is not published.")
NOT_YET = Rule(
    "signal-absent-before-first-request",
    Level.WARNING,
    "A required signal has no series yet, and the server has not finished a request.",
)
COMPOSITE = Rule(
    "composite-missing",
    Level.ERROR,
    "A required signal is not published, only the counts from which it is computed.",
)
OLDER_NAME = Rule("older-name", Level.WARNING, "A signal is published under the name of an older version only.")
OPTIONAL_MISSING = Rule("optional-signals-missing", Level.INFO, "Optional signals are not published.")
UNREADABLE = Rule(
    "signals-unreadable", Level.ERROR, "The lines that carry the signals are malformed or beyond a limit."
)
RULES = (MISSING, NOT_YET, COMPOSITE, OLDER_NAME, OPTIONAL_MISSING, UNREADABLE)

_WAY_OUT = {
    "triton": "Let the model publish the nv_trt_llm_* families; tidegate.publish.triton does.",
    "llamacpp": "No present version publishes it: score this server without it.",
}
_NO_WAY = "No option of the engine adds it: score this server without it."


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yield what is missing."""
    if evidence.unreadable:
        named = any(sample.family.startswith(evidence.engine.prefix) for sample in evidence.reading.samples)
        yield UNREADABLE.finding(
            f"the signals cannot be read: {evidence.unreadable}",
            "Mend the lines that carry them; see the other findings."
            if named
            else "Name another engine with --engine, or give the URL of the model server's own metrics.",
        )
        return
    for signal in REQUIRED:
        origin = evidence.load.origins.get(signal)
        if origin is None:
            yield from _missing(evidence, signal)
        elif not isinstance(origin.source, SeriesValue | SeriesLabel):
            yield COMPOSITE.finding(
                f"{signal} is not published, only its ingredients; pickers that follow the protocol look for "
                f"{render_source(evidence.sources(signal)[0])}",
                "Run `tidegate exporter` beside the server, or publish it with tidegate.publish.triton.",
            )
    for signal in REQUIRED:
        yield from _named_as_before(evidence, signal)
    signals = evidence.load.signals
    absent = [signal for signal in OPTIONAL if not _has_series(evidence, signal)]
    if signals.lora is None:
        absent.append("lora")
    if absent:
        yield OPTIONAL_MISSING.finding(f"not published, and not required: {', '.join(absent)}")


def finished(evidence: Evidence) -> float | None:
    """Return the engine's count of finished requests; None: it publishes none."""
    for selector in evidence.engine.completions:
        values = [sample.value for sample in evidence.select(selector) if math.isfinite(sample.value)]
        if values:
            return sum(values)
    return None


def _missing(evidence: Evidence, signal: str) -> Iterator[Finding]:
    engine = evidence.engine
    sources = evidence.sources(signal)
    if not sources or signal in engine.withdrawn:
        yield MISSING.finding(f"{signal}: {engine.name} does not publish it", _WAY_OUT.get(engine.name, _NO_WAY))
    elif _has_series(evidence, signal):
        return  # It is there, with a value that cannot be meant: rules on values tell.
    elif not finished(evidence) and _may_come(evidence, signal):
        yield NOT_YET.finding(
            f"{signal}: no series of {render_source(sources[0])} yet, and no request has finished. Until the first "
            "one, pickers do not know it",
            "Send the server one request when it has started, and check again."
            + (f" If that changes nothing, start it with {engine.options}." if engine.options else ""),
        )
    else:
        start = f"Start the server with {engine.options}." if engine.options else "Look whether an option turns it off."
        yield MISSING.finding(f"{signal}: no series of {render_source(sources[0])}", start)


def _may_come(evidence: Evidence, signal: str) -> bool:
    """Return whether the first request may bring the series: announced, or of an engine that does not announce."""
    families = [selector.family for source in evidence.sources(signal) for selector in selectors(source)]
    return evidence.engine.gauges_come_late or any(map(evidence.reading.is_described, families))


def _has_series(evidence: Evidence, signal: str) -> bool:
    wanted = [selector for source in evidence.sources(signal) for selector in selectors(source)]
    return any(True for selector in wanted for _ in evidence.select(selector))


def _named_as_before(evidence: Evidence, signal: str) -> Iterator[Finding]:
    origin = evidence.load.origins.get(signal)
    if origin is None or not isinstance(origin.source, SeriesValue | SeriesLabel):
        return
    newest = evidence.sources(signal)[0]
    if origin.source != newest:
        yield OLDER_NAME.finding(
            f"{signal} comes from {render_source(origin.source)}; newer versions and most readers have "
            f"{render_source(newest)}",
            f"Update {evidence.engine.name}, or run `tidegate exporter` beside it.",
        )
