"""Rules on ORCA: load in a header of answers, which supplements scraping."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.protocol.conformance.api import URL_OF_REQUESTS
from tidegate.protocol.conformance.finding import Finding, Level, Rule

MISSING = Rule("orca-missing", Level.INFO, "An answer has no load header, though it was asked for.")
MALFORMED = Rule("orca-malformed", Level.ERROR, "A load header cannot be read, or holds no number.")
REPORTED = Rule("orca-reported", Level.INFO, "An answer has a load header; tells what is in it.")
FAILED = Rule("orca-not-tried", Level.WARNING, "The request that should have brought a load header failed.")
RULES = (MISSING, MALFORMED, REPORTED, FAILED)

REQUEST_HEADER = "endpoint-load-metrics-format"
ANSWER_HEADER = "endpoint-load-metrics"
ASKED_FOR = "json"
"""In lower case: Triton knows no other."""

_WAY_OUT = f"See what --api says. Where the URL is that of metrics only, {URL_OF_REQUESTS}"
_SHOWN = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class OrcaAnswer:
    """The head of one answer."""

    path: str
    streamed: bool
    header: str | None
    """None: the answer has no such header."""
    problem: str
    """Why there is no answer to look at; empty: there is one."""


def judge(answer: OrcaAnswer) -> Finding:
    """Return what the load header of an answer says."""
    kind = "streamed" if answer.streamed else "plain"
    if answer.problem:
        return FAILED.finding(f"ORCA, {kind} answer of {answer.path}: {answer.problem}", _WAY_OUT)
    if answer.header is None:
        return MISSING.finding(f"ORCA: no load header on the {kind} answer of {answer.path}")
    try:
        load = parse_orca(answer.header)
    except ValueError as error:
        return MALFORMED.finding(
            f"ORCA: the load header of the {kind} answer of {answer.path} cannot be read: {error}",
            'Write it as JSON {"named_metrics": {"name": number}} or TEXT named_metrics.name=number.',
        )
    figures = ", ".join(f"{name}={value:g}" for name, value in load.items())
    return REPORTED.finding(f"ORCA: load header on the {kind} answer of {answer.path}: {figures[: 2 * _SHOWN]}")


def parse_orca(header: str) -> Mapping[str, float]:
    """Return the figures of a load header, those of nested maps by their last name.

    Raises:
        ValueError: it is in neither of the two formats, or holds no finite number.
    """
    text = header.strip()
    kind, _, rest = text.partition(" ")
    if kind.upper() in ("JSON", "TEXT"):
        text = rest.strip()
    figures = _from_json(text) if text.startswith("{") else _from_text(text)
    if not figures:
        raise ValueError(f"no figures in {header[:_SHOWN]!r}")
    for name, value in figures.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}")
    return figures


def _from_json(text: str) -> dict[str, float]:
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deep") from error
    figures: dict[str, float] = {}
    for name, value in document.items():
        inner = value.items() if isinstance(value, dict) else [(name, value)]
        for key, figure in inner:
            if isinstance(figure, bool) or not isinstance(figure, int | float):
                raise ValueError(f"{key[:_SHOWN]} is no number")  # noqa: TRY004 - of a text that was read
            figures[key] = _finite(figure)
    return figures


def _from_text(text: str) -> dict[str, float]:
    figures: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or not name:
            raise ValueError(f"no name=number at {part.strip()[:_SHOWN]!r}")
        figures[name.rpartition(".")[2]] = float(value)
    return figures


def _finite(figure: float) -> float:
    try:
        return float(figure)
    except OverflowError:
        return math.inf
