"""One line of an exposition, read as strictly as its format is defined, with the column of what breaks it.

The fast scanner, `protocol.exposition`, forgives what does not change a value; this one does not. Sources: Prometheus
text format 0.0.4, OpenMetrics 1.0. Every expression is possessive, so the time is linear in the length of the line.
"""

import re
from dataclasses import dataclass

from tidegate.protocol.exposition import Sample

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*+")
_NUMBER = re.compile(r"[+-]?(?:(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:e[+-]?[0-9]++)?|inf(?:inity)?|nan)", re.IGNORECASE)
_WORD = re.compile(r"[^ \t]++")
_BLANKS = re.compile(r"[ \t]*+")
_NO_BLANKS = re.compile("")
_SHOWN = 20


class MalformedLineError(Exception):
    """What breaks the format of a line."""

    def __init__(self, position: int, problem: str) -> None:
        """`position`: index of the character where it is."""
        self.position = position
        self.problem = problem
        super().__init__(problem)


@dataclass(frozen=True, slots=True)
class Grammar:
    """What tells the two formats apart."""

    name: str
    blanks: re.Pattern[str]
    """What may stand between two parts."""
    gap: re.Pattern[str]
    """What must stand between two words."""
    label: re.Pattern[str]
    """Name, equals sign and value of a label."""
    timestamp: re.Pattern[str]
    types: frozenset[str]
    exemplars: bool
    trailing_comma: bool


TEXT = Grammar(
    name="the text format",
    blanks=_BLANKS,
    gap=re.compile(r"[ \t]++"),
    label=re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*+)[ \t]*+=[ \t]*+"((?:[^"\\]++|\\[\\n"])*+)"'),
    timestamp=re.compile(r"-?[0-9]++"),
    types=frozenset({"counter", "gauge", "histogram", "summary", "untyped"}),
    exemplars=False,
    trailing_comma=True,
)
OPENMETRICS = Grammar(
    name="OpenMetrics",
    blanks=_NO_BLANKS,
    gap=re.compile(" "),
    label=re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*+)="((?:[^"\\]++|\\.)*+)"'),
    timestamp=_NUMBER,
    types=frozenset({"counter", "gauge", "histogram", "gaugehistogram", "stateset", "summary", "info", "unknown"}),
    exemplars=True,
    trailing_comma=False,
)
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*+")
_ESCAPE = re.compile(r'\\([\\n"])')


def parse_line(line: str, grammar: Grammar) -> Sample:
    """Read a line that holds a sample.

    Raises:
        MalformedLineError: it breaks the format.
    """
    start = _skip(grammar.blanks, line, 0)
    name = _NAME.match(line, start)
    if name is None:
        raise MalformedLineError(start, f"no metric name at {_shown(line, start)}")
    position = _skip(grammar.blanks, line, name.end())
    labels: dict[str, str] = {}
    if line.startswith("{", position):
        labels, position = _parse_labels(line, position + 1, grammar)
        if grammar.exemplars:
            position = _expect_gap(line, position, grammar)
    elif position == name.end():
        position = _expect_gap(line, position, grammar)
    value, position = _parse_number(line, _skip(grammar.blanks, line, position), "value")
    position = _parse_rest(line, position, grammar)
    if position < len(line):
        raise MalformedLineError(position, f"unexpected {_shown(line, position)}")
    return Sample(name.group(), labels, value)


def parse_metadata(line: str, grammar: Grammar) -> tuple[str, str, str] | None:
    """Read a line that begins with ``#``: return its keyword, the metric and the rest; None: only a comment.

    Raises:
        MalformedLineError: it names no metric, or no type that there is.
    """
    keyword, position = _word(line, _skip(_BLANKS, line, line.index("#") + 1))
    if keyword not in ("HELP", "TYPE") and not (grammar.exemplars and keyword == "UNIT"):
        return None
    start = _skip(_BLANKS, line, position)
    name = _NAME.match(line, start)
    if name is None or (name.end() < len(line) and line[name.end()] not in " \t"):
        raise MalformedLineError(start, f"no metric name behind {keyword}")
    start = _skip(_BLANKS, line, name.end())
    rest = line[start:].rstrip(" \t")
    if keyword == "TYPE" and rest not in grammar.types:
        raise MalformedLineError(start, f"{grammar.name} has no type {rest[:_SHOWN]!r}")
    return keyword, name.group(), rest


def _parse_labels(line: str, position: int, grammar: Grammar) -> tuple[dict[str, str], int]:
    """Read from behind the opening brace; return the labels, and where the closing brace ends."""
    labels: dict[str, str] = {}
    position = _skip(grammar.blanks, line, position)
    while not line.startswith("}", position):
        label = grammar.label.match(line, position)
        if label is None:
            raise _bad_label(line, position)
        name, value = label.groups()
        if name in labels:
            raise MalformedLineError(position, f"label {name[:_SHOWN]!r} occurs twice")
        labels[name] = _ESCAPE.sub(_unescape, value)
        position = _skip(grammar.blanks, line, label.end())
        if line.startswith(",", position):
            comma = position
            position = _skip(grammar.blanks, line, position + 1)
            if line.startswith("}", position) and not grammar.trailing_comma:
                raise MalformedLineError(comma, "a comma before the closing brace")
        elif not line.startswith("}", position):
            raise MalformedLineError(position, f"no comma or closing brace behind label {name[:_SHOWN]!r}")
    return labels, position + 1


def _bad_label(line: str, position: int) -> MalformedLineError:
    """Tell which part of a label is missing, and where."""
    name = _LABEL_NAME.match(line, position)
    if name is None:
        return MalformedLineError(position, f"no label name at {_shown(line, position)}")
    if not re.compile(r'[ \t]*+=[ \t]*+"').match(line, name.end()):
        return MalformedLineError(name.end(), f'no ="…" behind label {name.group()[:_SHOWN]!r}')
    return MalformedLineError(name.end(), f"the value of label {name.group()[:_SHOWN]!r} is cut off or badly escaped")


def _parse_number(line: str, position: int, what: str) -> tuple[float, int]:
    word, end = _word(line, position)
    if not word:
        raise MalformedLineError(position, f"no {what}")
    if not _NUMBER.fullmatch(word):
        raise MalformedLineError(position, f"the {what} {word[:_SHOWN]!r} is not a number")
    return float(word), end


def _parse_rest(line: str, position: int, grammar: Grammar) -> int:
    """Read the timestamp and the exemplar, where there are any; return where they end."""
    start = _skip(grammar.gap, line, position)
    word, end = _word(line, start)
    if start > position and word and not word.startswith("#"):
        if not grammar.timestamp.fullmatch(word):
            raise MalformedLineError(start, f"the timestamp {word[:_SHOWN]!r} is none of {grammar.name}")
        position = end
        start = _skip(grammar.gap, line, position)
    if line.startswith("#", start) and grammar.exemplars and start > position:
        return _parse_exemplar(line, start + 1, grammar)
    return _skip(grammar.blanks, line, position)


def _parse_exemplar(line: str, position: int, grammar: Grammar) -> int:
    position = _expect_gap(line, position, grammar)
    if not line.startswith("{", position):
        raise MalformedLineError(position, "no labels of an exemplar behind #")
    _, position = _parse_labels(line, position + 1, grammar)
    _, position = _parse_number(line, _expect_gap(line, position, grammar), "value of the exemplar")
    if position < len(line):
        _, position = _parse_number(line, _expect_gap(line, position, grammar), "timestamp of the exemplar")
    return position


def _expect_gap(line: str, position: int, grammar: Grammar) -> int:
    gap = grammar.gap.match(line, position)
    if gap is None:
        what = f"no space before {_shown(line, position)}" if position < len(line) else "no value"
        raise MalformedLineError(position, what)
    return gap.end()


def _skip(blanks: re.Pattern[str], line: str, position: int) -> int:
    found = blanks.match(line, position)
    return found.end() if found else position


def _word(line: str, position: int) -> tuple[str, int]:
    found = _WORD.match(line, position)
    return (found.group(), found.end()) if found else ("", position)


def _shown(line: str, position: int) -> str:
    return repr(line[position : position + _SHOWN]) if position < len(line) else "the end of the line"


def _unescape(escape: re.Match[str]) -> str:
    return "\n" if escape[1] == "n" else escape[1]
