"""Metric selectors, ``family{label=value,…}``: which series of an exposition carry a signal.

Source: GIE proposal 003, which writes the values without quotes; PromQL's quotes are accepted as well.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.protocol.errors import ConfigError

_FAMILY = re.compile(r"\s*+([a-zA-Z_:][a-zA-Z0-9_:]*+)\s*+")
_LABEL = re.compile(r"""\s*+([a-zA-Z_][a-zA-Z0-9_]*+)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|'([^']*+)'|([^\s"',{}]++))\s*+""")
_ESCAPE = re.compile(r"\\(.)")
_EXAMPLE = 'Write it as family{label=value}, for example nv_trt_llm_request_metrics{request_type="waiting"}.'


@dataclass(frozen=True, slots=True)
class Selector:
    """The series of one family that have all of these labels, and possibly more."""

    family: str
    """Name as its samples have it, suffixes such as ``_total`` included."""
    labels: tuple[tuple[str, str], ...] = ()
    """Pairs of label name and value, in the order written."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether a series of the family with these labels is selected."""
        return all(labels.get(name) == value for name, value in self.labels)

    def __str__(self) -> str:
        if not self.labels:
            return self.family
        return f"{self.family}{{{','.join(f'{name}={_render_value(value)}' for name, value in self.labels)}}}"


def parse_selector(text: str) -> Selector:
    """Read a selector as a person writes it; spaces between its parts do not matter.

    Raises:
        ConfigError: the text is no selector, or names a label twice.
    """
    family = _FAMILY.match(text)
    if family is None:
        raise _malformed(text, "no metric name at the start")
    rest = text[family.end() :].rstrip()
    if not rest:
        return Selector(family.group(1))
    if not rest.startswith("{") or not rest.endswith("}"):
        raise _malformed(text, f"unexpected {rest[:20]!r} after the metric name")
    return Selector(family.group(1), _parse_labels(text, rest[1:-1]))


def _parse_labels(text: str, inside: str) -> tuple[tuple[str, str], ...]:
    labels: dict[str, str] = {}
    position = 0
    while inside[position:].strip():
        label = _LABEL.match(inside, position)
        if label is None:
            raise _malformed(text, f"no label=value at {inside[position : position + 20]!r}")
        name, escaped, quoted, bare = label.groups()
        if name in labels:
            raise _malformed(text, f"label {name!r} occurs twice")
        labels[name] = bare or quoted or _ESCAPE.sub(_unescape, escaped or "")
        position = label.end()
        if position < len(inside):
            if inside[position] != ",":
                raise _malformed(text, f"no comma before {inside[position : position + 20]!r}")
            position += 1
    return tuple(labels.items())


def _unescape(escape: re.Match[str]) -> str:
    return "\n" if escape[1] == "n" else escape[1]


def _render_value(value: str) -> str:
    if re.fullmatch(r"""[^\s"'\\,{}]+""", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _malformed(text: str, problem: str) -> ConfigError:
    return ConfigError(f"malformed metric selector {text[:100]!r}: {problem}", fix=_EXAMPLE)
