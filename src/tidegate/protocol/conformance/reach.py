"""Rules on servers that could not be checked, or are of no engine known."""

import json
from collections.abc import Iterator

from tidegate.protocol.conformance.finding import Finding, Level, Rule
from tidegate.protocol.engines import ENGINES
from tidegate.protocol.errors import ScrapeError, ScrapeFailure

UNREACHABLE = Rule("unreachable", Level.ERROR, "No connection to the server, or it ended before the answer did.")
TIMEOUT = Rule("timeout", Level.ERROR, "The metrics did not come in time.")
NOT_AN_EXPOSITION = Rule("not-an-exposition", Level.ERROR, "What the URL gives is no exposition.")
STATISTICS = Rule("statistics-json", Level.ERROR, "The URL gives iteration statistics in JSON, not an exposition.")
UNKNOWN_ENGINE = Rule("engine-unknown", Level.ERROR, "An exposition, but not of an engine that is known.")
ELSEWHERE = Rule("metrics-elsewhere", Level.WARNING, "The metrics were found at a port that may be another server's.")
RULES = (UNREACHABLE, TIMEOUT, NOT_AN_EXPOSITION, STATISTICS, UNKNOWN_ENGINE, ELSEWHERE)

_TRITON_PORT = 8000
"""Where Triton serves, if its metrics are where they are looked for: at 8002, its default too."""

_STATISTICS_MARK = "numActiveRequests"
_BY_REASON = {
    ScrapeFailure.UNREACHABLE: (UNREACHABLE, "Look whether the server runs there, and whether the port is right."),
    ScrapeFailure.NO_METRICS: (UNREACHABLE, "Give the URL of its metrics."),
    ScrapeFailure.EXHAUSTED: (UNREACHABLE, "Raise the limit on open files of this machine."),
    ScrapeFailure.CLOSED: (UNREACHABLE, "Look into the server's log."),
    ScrapeFailure.TIMEOUT: (TIMEOUT, "Give it more time with --timeout, or look why it hangs."),
}


def judge(error: ScrapeError) -> Finding:
    """Return why a server could not be checked."""
    rule, fix = _BY_REASON.get(
        error.reason, (NOT_AN_EXPOSITION, "Give the URL of its metrics; some engines need an option to have any.")
    )
    if error.reason is ScrapeFailure.TOO_LARGE:
        fix = "Give the URL of its metrics, if these are others; else publish fewer series."
    return rule.finding(str(error), fix)


def statistics_instead(url: str) -> Finding:
    """Return what to do about iteration statistics where an exposition was looked for."""
    return STATISTICS.finding(
        f"{url} is a JSON array of iteration statistics, as trtllm-serve has it; each reader takes from the others",
        f"Give trtllm-serve the options {ENGINES['trtllm-serve'].options} to have gauges at /prometheus/metrics, or "
        "run `tidegate exporter` beside it.",
    )


def engine_unknown(url: str) -> Finding:
    """Return what to do about an exposition without a name that an engine's families have."""
    return UNKNOWN_ENGINE.finding(
        f"{url} is an exposition, but of none of the engines known: {', '.join(ENGINES)}",
        "Name the engine with --engine, or give the URL of the model server's own metrics.",
    )


def judge_place(*, given: str, found: str, port: int) -> Iterator[Finding]:
    """Yield a doubt whether the metrics are those of the server. `given`, `found`: host:port; `port`: of `given`."""
    if given != found and port != _TRITON_PORT:
        yield ELSEWHERE.finding(
            f"there are no metrics at {given}; these are from {found}, and may be another server's",
            f"Name the place of its own: http://{given},metrics=http://{found}/metrics, if that is it.",
        )


def is_statistics(body: bytes) -> bool:
    """Return whether a body is a JSON array of iteration statistics; an empty one may be."""
    if not body.lstrip().startswith(b"["):
        return False
    try:
        rows = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(rows, list) and all(isinstance(row, dict) and _STATISTICS_MARK in row for row in rows[:1])
