"""The strict reader: what it accepts, everyone reads alike; what it refuses, it shows by line and column."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from expositions import openmetrics_families, other_lines, sample_lines
from tidegate.protocol.conformance.strict import MAX_PROBLEMS, StrictReading, read_strictly
from tidegate.protocol.errors import ScrapeError
from tidegate.protocol.exposition import MAX_LINES, Sample, scan
from verdicts import EXPOSITIONS


def comparable(family: str, labels: dict[str, str], value: float) -> tuple[str, tuple[tuple[str, str], ...], str]:
    """One sample as plain text: NaN equals itself, 1 equals 1.0, and -0 equals 0."""
    return family, tuple(labels.items()), repr(float(value) + 0.0)


def samples_of(samples: tuple[Sample, ...] | list[Sample]) -> list[tuple[str, tuple[tuple[str, str], ...], str]]:
    return [comparable(sample.family, sample.labels, sample.value) for sample in samples]


def places(reading: StrictReading) -> list[tuple[int, int]]:
    return [(problem.line, problem.column) for problem in reading.problems]


@pytest.mark.parametrize("path", EXPOSITIONS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_real_expositions_break_no_rule_and_read_as_the_scanner_and_prometheus_client_read_them(path: Path) -> None:
    exposition = path.read_bytes()

    reading = read_strictly(exposition)

    assert reading.problem_count == 0
    families = sorted({sample.family for sample in reading.samples})
    assert samples_of(reading.samples) == samples_of(scan(exposition, families))
    theirs = [
        # That parser renames the samples of counters: to "x_total", whatever the line says.
        comparable(
            sample.name if sample.name in families else sample.name.removesuffix("_total"), sample.labels, sample.value
        )
        for metric in parse_text(exposition.decode())
        for sample in metric.samples
    ]
    assert sorted(samples_of(reading.samples)) == sorted(theirs)
    lines = exposition.split(b"\n")
    assert all(
        lines[line - 1].startswith(sample.family.encode())
        for sample, line in zip(reading.samples, reading.lines, strict=True)
    )


def test_types_and_helps_are_kept_by_family() -> None:
    reading = read_strictly(
        b'# HELP a A.\n# TYPE a histogram\n# TYPE b counter\na_bucket{le="1"} 1\nb_total 2\nc_sum 3\n'
    )

    assert dict(reading.types) == {"a": "histogram", "b": "counter"}
    assert reading.helped == {"a"}
    assert [reading.family(sample.family) for sample in reading.samples] == ["a", "b", "c_sum"]
    assert reading.is_described("a_count")
    assert not reading.is_described("c_sum")
    assert read_strictly(b"# HELP d D.\n").is_described("d")


@pytest.mark.parametrize(
    ("line", "column", "says"),
    [
        (b"1waiting 4", 1, "no metric name at '1waiting 4'"),
        (b'  {a="1"} 4', 3, "no metric name"),
        (b"waiting-by 4", 8, "no space before '-by 4'"),
        (b"waiting", 8, "no value"),
        (b"waiting ", 9, "no value"),
        (b"waiting{} ", 11, "no value"),
        (b"waiting x", 9, "the value 'x' is not a number"),
        (b"waiting 1_0", 9, "'1_0' is not a number"),
        (b"waiting 0x1", 9, "'0x1' is not a number"),
        ("waiting \u0661".encode(), 9, "is not a number"),
        (b"waiting 4 1.5", 11, "the timestamp '1.5' is none of the text format"),
        (b"waiting 4 5 6", 13, "unexpected '6'"),
        (b"waiting 4 # {} 1", 11, "unexpected '# {} 1'"),
        (b"waiting{a=1} 4", 10, "behind label 'a'"),
        (b'waiting{a="1} 4', 10, "label 'a' is cut off"),
        (b'waiting{a="\\t"} 4', 10, "badly escaped"),
        (b'waiting{a="1" b="2"} 4', 15, "no comma or closing brace behind label 'a'"),
        (b'waiting{a="1",,} 4', 15, "no label name at ',} 4'"),
        (b'waiting{a="1",a="2"} 4', 15, "label 'a' occurs twice"),
        ('waiting{ü="1"} 4'.encode(), 9, "no label name"),
        ('waiting{a="ü",1="2"} 4'.encode(), 15, "no label name"),
        (b'waiting{a="\xff"} 4', 12, "byte 0xff is not UTF-8"),
        (b"waiting 4\r", 10, "carriage return"),
        (b"# TYPE waiting_ gage", 17, "has no type 'gage'"),
        (b"# TYPE waiting_", 16, "has no type ''"),
        (b"# HELP 1 x", 8, "no metric name behind HELP"),
        (b"# TYPE earlier gauge", 1, "TYPE line of earlier comes behind its first sample"),
        (b"# HELP earlier Again.", 1, "a second HELP line of earlier"),
    ],
)
def test_a_line_that_breaks_the_text_format_is_shown_by_line_and_column(line: bytes, column: int, says: str) -> None:
    reading = read_strictly(b"# HELP earlier Requests.\nearlier 1\n\n" + line + b"\nlater 2\n")

    assert places(reading) == [(4, column)]
    assert says in reading.problems[0].text
    assert [sample.family for sample in reading.samples if sample.family in ("earlier", "later")] == [
        "earlier",
        "later",
    ]


@pytest.mark.parametrize(
    "line",
    [
        b'  waiting { a = "x" , b="\\\\\\"\\n" , } 4 -17 ',
        b"waiting{}4",
        b"\twaiting\t+Inf",
        b"waiting Nan",
        b"waiting .5e-3",
        b"#",
        b"# a comment",
        b"#HELP waiting No space.",
        b'{"a name in quotes"} 1',
    ],
)
def test_the_text_format_allows_these(line: bytes) -> None:
    assert read_strictly(line + b"\n").problems == ()


@pytest.mark.parametrize(
    ("exposition", "place", "says"),
    [
        (b"a 1\n", (2, 1), "no # EOF"),
        (b"a 1\n# EOF", (2, 6), "no newline"),
        (b"a 1\n# EOF\nb 2\n", (3, 1), "behind # EOF"),
        (b"\n# EOF\n", (1, 1), "an empty line"),
        (b"# so\n# EOF\n", (1, 1), "a comment"),
        (b"a  1\n# EOF\n", (1, 3), "no value"),
        (b'a{b="1",} 1\n# EOF\n', (1, 8), "a comma before the closing brace"),
        (b"a 1 # {} \n# EOF\n", (1, 10), "no value of the exemplar"),
        (b"a 1 # x 1\n# EOF\n", (1, 7), "no labels of an exemplar"),
        (b"# TYPE a untyped\n# EOF\n", (1, 10), "OpenMetrics has no type 'untyped'"),
    ],
)
def test_what_breaks_openmetrics_is_shown_by_line_and_column(
    exposition: bytes, place: tuple[int, int], says: str
) -> None:
    reading = read_strictly(exposition, openmetrics=True)

    assert places(reading)[0] == place
    assert says in reading.problems[0].text


def test_a_last_line_without_a_newline_is_read_and_told_of() -> None:
    reading = read_strictly(b"a 1\nb 2")

    assert [sample.family for sample in reading.samples] == ["a", "b"]
    assert [(problem.line, problem.column, problem.text) for problem in reading.problems] == [
        (2, 4, "no newline at the end of the last line")
    ]


def test_all_problems_are_counted_and_the_first_are_kept() -> None:
    reading = read_strictly(b"a 1\n" + b"b\n" * (MAX_PROBLEMS + 7))

    assert reading.problem_count == MAX_PROBLEMS + 7
    assert places(reading) == [(2 + number, 2) for number in range(MAX_PROBLEMS)]


def test_lines_beyond_the_limit_are_not_read() -> None:
    reading = read_strictly(b"a 1\n" * (MAX_LINES + 1))

    assert len(reading.samples) == MAX_LINES
    assert places(reading) == [(MAX_LINES + 1, 1)]
    assert "more than" in reading.problems[0].text
    assert read_strictly(b"a 1\n" * MAX_LINES).problem_count == 0


@pytest.mark.parametrize("exposition", [b"", b"<html>\n<p>404</p>\n", b'{"a": 1}\n', b"[]\n", b"\x00\xff\n", b"# ha\n"])
def test_what_is_no_exposition_is_told_apart(exposition: bytes) -> None:
    assert not read_strictly(exposition).is_exposition


@given(st.lists(sample_lines() | other_lines).map("\n".join), st.booleans())
def test_generated_expositions_read_as_the_scanner_and_prometheus_client_read_them(text: str, final: bool) -> None:
    exposition = text + "\n" * final
    families = ["waiting", "waiting_by_reason", "a:b", "running", "x_total"]

    reading = read_strictly(exposition.encode())

    expected = samples_of(scan(exposition.encode(), families))
    assert samples_of(reading.samples) == expected
    assert sorted(expected) == sorted(
        comparable(
            sample.name if sample.name in families else sample.name.removesuffix("_total"), sample.labels, sample.value
        )
        for metric in parse_text(exposition)
        for sample in metric.samples
    )


@given(st.tuples(*(openmetrics_families(name) for name in ("waiting", "tokens", "config"))))
def test_generated_openmetrics_reads_as_the_scanner_and_prometheus_client_read_it(families: tuple[str, ...]) -> None:
    exposition = "".join(families) + "# EOF\n"

    reading = read_strictly(exposition.encode(), openmetrics=True)

    assert reading.problems == ()
    expected = [
        comparable(sample.name, sample.labels, sample.value)
        for metric in parse_openmetrics(exposition)
        for sample in metric.samples
    ]
    assert samples_of(reading.samples) == expected
    names = {sample.family for sample in reading.samples}
    assert samples_of(reading.samples) == samples_of(scan(exposition.encode(), sorted(names)))


near_lines = st.text('waiting{}="\\,# \t\r01.eN-_', max_size=40).map(lambda text: "waiting" + text)


@given(near_lines.map(str.encode), st.booleans())
def test_a_line_that_breaks_no_rule_is_read_by_the_scanner_with_the_same_value(line: bytes, openmetrics: bool) -> None:
    reading = read_strictly(line + b"\n", openmetrics=openmetrics)
    families = [sample.family for sample in reading.samples]

    if families:
        assert samples_of(scan(line, families)) == samples_of(reading.samples)


@given(near_lines.map(str.encode))
def test_a_line_that_the_scanner_refuses_breaks_a_rule(line: bytes) -> None:
    try:
        scan(line, ["waiting"])
    except ScrapeError:
        assert read_strictly(line + b"\n").problem_count


@given(st.binary(), st.booleans())
def test_any_bytes_are_read(exposition: bytes, openmetrics: bool) -> None:
    reading = read_strictly(exposition, openmetrics=openmetrics)

    assert len(reading.problems) == min(reading.problem_count, MAX_PROBLEMS)
    assert all(problem.line >= 1 and problem.column >= 1 for problem in reading.problems)
    assert len(reading.samples) == len(reading.lines)
    assert not any(math.isnan(line) for line in reading.lines)


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "newlines": lambda size: b"\n" * size,
    "blanks": lambda size: b" " * size,
    "indents": lambda size: b" \t\n" * (size // 3),
    "one name": lambda size: b"a" * size,
    "backslashes": lambda size: b'a{b="' + b"\\" * size,
    "escapes": lambda size: b'a{b="' + b"\\x" * (size // 2),
    "labels": lambda size: b"a{" + b'b="",' * (size // 5),
    "braces": lambda size: b"a" + b"{" * size,
    "digits": lambda size: b"a " + b"9" * size,
    "almost a number": lambda size: b"a " + b"9" * size + b"x",
    "exemplars": lambda size: b"a 1 " + b"# " * (size // 2),
    "types": lambda size: b"# TYPE " * (size // 7),
    "carriage returns": lambda size: b"\r" * size,
    "broken UTF-8": lambda size: b"a" * size + b"\xff",
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.timeout(20)
def test_megabytes_of_near_misses_are_passed_over(make: Callable[[int], bytes]) -> None:
    # Quadratic work on 4 MB would take hours, not the milliseconds that it takes.
    for openmetrics in (False, True):
        assert len(read_strictly(make(4_000_000), openmetrics=openmetrics).samples) <= 1
