"""A whole exposition, read line by line, with everything that breaks its format.

For `check` only: the signals path reads with `protocol.exposition`, which looks at a few lines of the many. Takes
linear time and stops at MAX_LINES.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.protocol.conformance.grammar import (
    OPENMETRICS,
    TEXT,
    Grammar,
    MalformedLineError,
    parse_line,
    parse_metadata,
)
from tidegate.protocol.exposition import MAX_LINES, Sample

MAX_PROBLEMS = 10
"""Most problems that are kept; the others are counted."""

_SUFFIXES = ("_bucket", "_count", "_sum", "_total", "_created", "_info", "_gcount", "_gsum")
"""What samples have behind the name of their family, by the type of it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What breaks the format, and where."""

    line: int
    """The first is 1."""
    column: int
    """In characters; the first is 1."""
    text: str


@dataclass(frozen=True, slots=True)
class StrictReading:
    """All that could be read."""

    samples: tuple[Sample, ...]
    """In their order, without those of malformed lines."""
    lines: tuple[int, ...]
    """The line of each sample; the first is 1."""
    types: Mapping[str, str]
    """The type of each family that declares one."""
    helped: frozenset[str]
    """Families with a HELP line."""
    problems: tuple[Problem, ...]
    """The first MAX_PROBLEMS, in their order."""
    problem_count: int

    def family(self, sample_name: str) -> str:
        """Return the family of a sample: its name, or what is left of that without the suffix of a type."""
        if sample_name not in self.types:
            for suffix in _SUFFIXES:
                if sample_name.endswith(suffix) and sample_name.removesuffix(suffix) in self.types:
                    return sample_name.removesuffix(suffix)
        return sample_name

    def is_described(self, sample_name: str) -> bool:
        """Return whether a sample of this name is announced by a HELP or TYPE line."""
        family = self.family(sample_name)
        return family in self.types or family in self.helped

    @property
    def is_exposition(self) -> bool:
        """Whether anything in it is what an exposition holds."""
        return bool(self.samples or self.types or self.helped)


def read_strictly(exposition: bytes, *, openmetrics: bool = False) -> StrictReading:
    """Read an exposition by the rules of OpenMetrics, or of the text format. Never raises."""
    reader = _Reader(OPENMETRICS if openmetrics else TEXT)
    lines = exposition.split(b"\n", MAX_LINES)
    last = lines.pop()
    for number, raw in enumerate(lines, 1):
        reader.read(number, raw)
    end = len(lines) + 1
    if len(lines) == MAX_LINES and last:
        reader.note(end, 1, f"more than {MAX_LINES} lines; the rest is not read")
    elif last:
        reader.read(end, last)
        reader.note(end, len(last.decode(errors="replace")) + 1, "no newline at the end of the last line")
    if openmetrics:
        reader.check_end(end)
    return reader.result()


class _Reader:
    """Takes one line after the other."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._samples: list[Sample] = []
        self._lines: list[int] = []
        self._names: set[str] = set()
        self._types: dict[str, str] = {}
        self._helped: set[str] = set()
        self._problems: list[Problem] = []
        self._count = 0
        self._ended = False

    def note(self, line: int, column: int, text: str) -> None:
        """Keep a problem, or only count it."""
        self._count += 1
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(Problem(line, column, text))

    def read(self, number: int, raw: bytes) -> None:
        """Read one line, without its newline."""
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            column = len(raw[: error.start].decode(errors="replace")) + 1
            self.note(number, column, f"byte 0x{raw[error.start]:02x} is not UTF-8")
            return
        if line.endswith("\r"):
            self.note(number, len(line), "a carriage return before the newline")
            line = line[:-1]
        try:
            self._read(number, line)
        except MalformedLineError as error:
            self.note(number, error.position + 1, error.problem)

    def check_end(self, line: int) -> None:
        """Note that an OpenMetrics exposition is cut off."""
        if not self._ended:
            self.note(line, 1, "no # EOF at the end of OpenMetrics")

    def result(self) -> StrictReading:
        """Return all that was read."""
        return StrictReading(
            samples=tuple(self._samples),
            lines=tuple(self._lines),
            types=self._types,
            helped=frozenset(self._helped),
            problems=tuple(self._problems),
            problem_count=self._count,
        )

    def _read(self, number: int, line: str) -> None:
        if self._ended:
            raise MalformedLineError(0, "a line behind # EOF")
        stripped = line.lstrip(" \t")
        if not stripped:
            if self._grammar is OPENMETRICS:
                raise MalformedLineError(0, "an empty line; OpenMetrics has none")
        elif stripped.startswith("#"):
            self._read_metadata(line)
        elif not stripped.startswith('{"'):  # A name that needs quotes: no engine has one, and nothing here reads it.
            sample = parse_line(line, self._grammar)
            self._samples.append(sample)
            self._lines.append(number)
            self._names.add(sample.family)

    def _read_metadata(self, line: str) -> None:
        if self._grammar is OPENMETRICS and line == "# EOF":
            self._ended = True
            return
        metadata = parse_metadata(line, self._grammar)
        if metadata is None:
            if self._grammar is OPENMETRICS:
                raise MalformedLineError(0, "a comment; OpenMetrics has none")
            return
        keyword, name, rest = metadata
        if keyword == "HELP":
            if name in self._helped:
                raise MalformedLineError(0, f"a second HELP line of {name}")
            self._helped.add(name)
        elif keyword == "TYPE":
            if name in self._types:
                raise MalformedLineError(0, f"a second TYPE line of {name}")
            self._types[name] = rest
            if name in self._names:
                raise MalformedLineError(0, f"the TYPE line of {name} comes behind its first sample")
