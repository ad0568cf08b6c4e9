"""The exposition scanner: finds the few series that are needed in the many that a model server writes.

Signals path: exposition → **scan** → LoadSignals → Pool row → filters and scorers.

One regular expression jumps from line start to line start and stops only at the families asked for; no other line is
split, decoded or looked at. Reads the Prometheus text format and OpenMetrics (exemplars, ``# EOF``) alike. Names in
quotes, ``{"family",label="value"}``, are not read: writers use them only for names that need quotes.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from tidegate.protocol.errors import ScrapeError

MAX_LINE_BYTES = 65_536
"""Longest line that is read, where it is one of the lines asked for."""
MAX_LABELS = 128
"""Most labels of one series; vLLM 0.32 has one with 37."""
MAX_SAMPLES = 50_000
"""Most series read from one exposition; vLLM adds one for each combination of LoRA adapters it has ever run."""

_LABEL = re.compile(r'[ \t]*+([a-zA-Z_][a-zA-Z0-9_]*+)[ \t]*+=[ \t]*+"((?:[^"\\]++|\\.)*+)"[ \t]*+')
_END_OF_LABELS = re.compile(r"[ \t]*+}")
_ESCAPE = re.compile(r'\\[\\n"]')
_ESCAPES = {"\\\\": "\\", "\\n": "\n", '\\"': '"'}


@dataclass(frozen=True, slots=True)
class Sample:
    """One series with its value; the timestamp and the exemplar are read over."""

    family: str
    """Name as written on the line, suffixes such as ``_total`` included."""
    labels: dict[str, str]
    value: float


def scan(exposition: bytes, families: Collection[str]) -> list[Sample]:
    """Return the samples of these families, in the order of the exposition.

    Absent families are left out; a line of another family is never an error, however it looks. Takes linear time.

    Raises:
        ScrapeError: a line of one of the families is malformed, or goes beyond a limit of this module.
    """
    if not families:
        return []
    # A newline in front makes the first line like all others; it lets the expression begin with a literal character,
    # which the engine finds ten times as fast as it finds a "^" (measured 2026-11: 44 µs and 407 µs for 84 kB).
    text = b"\n" + exposition
    wanted = re.compile(rb"\n[ \t]*+(" + "|".join(map(re.escape, families)).encode() + rb")(?=[ \t{])")
    samples: list[Sample] = []
    for found in wanted.finditer(text):
        end = text.find(b"\n", found.end())
        rest = text[found.end() : end if end >= 0 else None]
        if len(rest) > MAX_LINE_BYTES:
            raise _malformed(found[1], rest, f"the line is longer than {MAX_LINE_BYTES} bytes")
        if len(samples) == MAX_SAMPLES:
            raise ScrapeError(f"more than {MAX_SAMPLES} series where a few were expected, such as {found[1].decode()}")
        samples.append(_parse_sample(found[1], rest))
    return samples


def mentions(exposition: bytes, prefix: str) -> bool:
    """Return whether a family whose name begins so has a sample, or at least a HELP or TYPE line."""
    line = rb"\n[ \t]*+(?:#[ \t]++(?:HELP|TYPE)[ \t]++)?+" + re.escape(prefix).encode()
    return re.search(line, b"\n" + exposition) is not None


def _parse_sample(family: bytes, rest: bytes) -> Sample:
    """Read what follows the family's name on its line."""
    text = rest.decode("utf-8", errors="replace").strip(" \t\r")
    try:
        labels, position = _parse_labels(text, 1) if text.startswith("{") else ({}, 0)
        return Sample(family.decode(), labels, _parse_value(text[position:]))
    except ValueError as error:
        raise _malformed(family, rest, str(error)) from error


def _parse_labels(text: str, position: int) -> tuple[dict[str, str], int]:
    """Read labels from behind the opening brace; return them and where the closing brace ends."""
    labels: dict[str, str] = {}
    while (end := _END_OF_LABELS.match(text, position)) is None:
        label = _LABEL.match(text, position)
        if label is None:
            raise ValueError(f'no label="value" at {text[position : position + 20]!r}')
        name, value = label.groups()
        if name in labels:
            raise ValueError(f"label {name!r} occurs twice")
        if len(labels) == MAX_LABELS:
            raise ValueError(f"more than {MAX_LABELS} labels")
        labels[name] = _ESCAPE.sub(_unescape, value) if "\\" in value else value
        position = label.end()
        if text.startswith(",", position):
            position += 1
        elif not text.startswith("}", position):
            raise ValueError(f"no comma or brace at {text[position : position + 20]!r}")
    return labels, end.end()


def _parse_value(text: str) -> float:
    """Read ``value [timestamp] [# exemplar]``."""
    numbers = text.partition("#")[0].split()
    if not 1 <= len(numbers) <= 2:
        raise ValueError("no value, or more than a value and a timestamp")
    for number in numbers:
        # float() also reads what neither format knows: 1_000 and digits of other scripts.
        if "_" in number or not number.isascii():
            raise ValueError(f"{number[:20]!r} is not a number")
    value, *_timestamp = [float(number) for number in numbers]
    return value


def _unescape(escape: re.Match[str]) -> str:
    return _ESCAPES[escape[0]]


def _malformed(family: bytes, rest: bytes, problem: str) -> ScrapeError:
    line = (family + rest[:80]).decode("utf-8", errors="replace")
    return ScrapeError(f"malformed exposition: {problem}: {line!r}")
