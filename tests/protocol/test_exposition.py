"""The exposition scanner reads what prometheus_client reads, of the families asked for, and nothing else."""

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from expositions import openmetrics_families, other_lines, sample_lines
from tidegate.protocol.errors import ScrapeError, ScrapeFailure
from tidegate.protocol.exposition import (
    MAX_LABELS,
    MAX_LINE_BYTES,
    MAX_LINES,
    MAX_READ_BYTES,
    MAX_SAMPLES,
    Sample,
    first_mentioned,
    mentions,
    scan,
)

FIXTURES = Path(__file__).parents[1] / "fixtures" / "metrics"
EXPOSITIONS = sorted(path for path in FIXTURES.glob("*/*.txt") if not path.name.endswith(".headers.txt"))

Comparable = tuple[str, tuple[tuple[str, str], ...], str]


def comparable(family: str, labels: dict[str, str], value: float) -> Comparable:
    """One sample as plain text: NaN equals itself, 1 equals 1.0, and -0 equals 0."""
    return family, tuple(labels.items()), repr(float(value) + 0.0)


def read(exposition: bytes, families: list[str]) -> list[Comparable]:
    return [comparable(sample.family, sample.labels, sample.value) for sample in scan(exposition, families)]


def read_by_prometheus_client(exposition: str, families: list[str]) -> list[Comparable]:
    samples = []
    for metric in parse_text(exposition):
        for sample in metric.samples:
            # That parser renames the samples of counters: to "x_total", whatever the line says.
            name = sample.name if sample.name in families else sample.name.removesuffix("_total")
            samples.append(comparable(name, sample.labels, sample.value))
    return [sample for sample in samples if sample[0] in families]


def one(line: bytes) -> Sample:
    (sample,) = scan(line, ["waiting"])
    return sample


@pytest.mark.parametrize("path", EXPOSITIONS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_line_of_a_real_exposition_reads_as_prometheus_client_reads_it(path: Path) -> None:
    text = path.read_text()
    families = sorted({line.split("{")[0].split(" ")[0] for line in text.splitlines() if line[0] != "#"})

    samples = read(text.encode(), families)

    assert len(samples) == sum(not line.startswith("#") for line in text.splitlines())
    assert sorted(samples) == sorted(read_by_prometheus_client(text, families))


def test_a_family_is_not_found_by_the_beginning_of_its_name() -> None:
    exposition = b"# HELP waiting waiting 9\n# TYPE waiting gauge\nwaiting_by_reason 5\nwaiting 3\nnot_waiting 7\n"

    assert scan(exposition, ["waiting"]) == [Sample("waiting", {}, 3.0)]


def test_names_inside_labels_help_and_comments_are_no_samples() -> None:
    exposition = b'# waiting 1\n#\n# HELP other see \\nwaiting 2\nother{a="\\nwaiting 3",b="waiting{} 4"} 0\n'

    assert scan(exposition, ["waiting"]) == []


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"waiting 4", 4.0),
        (b"waiting 4.0\r\n", 4.0),
        (b"\twaiting\t4\t1700000000000 \r\n", 4.0),
        (b"  waiting   4   1700000000000", 4.0),
        (b"waiting{} 4", 4.0),
        (b"waiting{}4", 4.0),
        (b"waiting { } 4", 4.0),
        (b"waiting 1.7e+09", 1.7e9),
        (b"waiting +Inf", math.inf),
        (b"waiting -Inf", -math.inf),
        (b'waiting 4 # {trace_id="a#b"} 0.5 1.5\n# EOF\n', 4.0),
        (b"waiting 4 1.5 # {} 0.5\n# EOF", 4.0),
    ],
)
def test_values_are_read_in_every_form_the_formats_allow(line: bytes, value: float) -> None:
    assert one(line) == Sample("waiting", {}, value)


@pytest.mark.parametrize("line", [b"waiting NaN", b"waiting Nan", b"waiting nan 17"])
def test_every_spelling_of_nan_is_read(line: bytes) -> None:
    assert math.isnan(one(line).value)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (rb'{model="a,b}c # \"d\" \\ {e=1",engine="0"}', {"model": 'a,b}c # "d" \\ {e=1', "engine": "0"}),
        (rb'{a="line\nbreak",b="\t stays",c="\\n stays"}', {"a": "line\nbreak", "b": "\\t stays", "c": "\\n stays"}),
        (rb'{a="\\\n",b="\\\\n",c="\\\"",d="\t\\\\"}', {"a": "\\\n", "b": "\\\\n", "c": '\\"', "d": "\\t\\\\"}),
        (rb'{ a = "x" , b="" , }', {"a": "x", "b": ""}),
        ('{a="über"}'.encode(), {"a": "über"}),
        (b'{a="\xff"}', {"a": "�"}),
    ],
)
def test_label_values_may_hold_anything(labels: bytes, expected: dict[str, str]) -> None:
    assert one(b"waiting" + labels + b" 1") == Sample("waiting", expected, 1.0)


@pytest.mark.parametrize(
    "line",
    [
        b"waiting ",
        b"waiting x",
        b"waiting 1_0",
        b"waiting 1 2 3",
        b"waiting 1 x",
        b"waiting \xd9\xa1",
        b"waiting{a=1} 1",
        b'waiting{a="1} 1',
        b'waiting{a="1"',
        b'waiting{a="1" b="2"} 1',
        b'waiting{a="1",a="2"} 1',
        b'waiting{a="1"}',
        b'waiting{0="1"} 1',
    ],
)
def test_a_malformed_line_is_an_error_that_shows_it(line: bytes) -> None:
    with pytest.raises(ScrapeError, match=r"malformed exposition: .*: 'waiting"):
        scan(b"other 1\n" + line + b"\nother 2\n", ["waiting"])


def test_a_malformed_line_of_another_family_is_no_error() -> None:
    assert scan(b'other{a="1 x\nwaiting 1\n\xff\xfe{{{', ["waiting"]) == [Sample("waiting", {}, 1.0)]


def test_absent_families_are_left_out() -> None:
    assert scan(b"waiting 1", ["running"]) == []
    assert scan(b"waiting 1", []) == []
    assert scan(b"", ["waiting"]) == []


def test_lines_labels_and_series_beyond_the_limits_are_errors() -> None:
    too_many_labels = ",".join(f'l{number}=""' for number in range(MAX_LABELS + 1))
    for exposition, problem in [
        (b'waiting{a="%s"} 1' % (b"x" * MAX_LINE_BYTES), "longer than"),
        (b"waiting{%s} 1" % too_many_labels.encode(), "labels"),
        (b"waiting 1\n" * (MAX_SAMPLES + 1), f"more than {MAX_SAMPLES} series .*, such as waiting"),
    ]:
        with pytest.raises(ScrapeError, match=problem):
            scan(exposition, ["waiting"])


@pytest.mark.parametrize("label_bytes", [200, 10_000, MAX_LINE_BYTES - 100])
def test_lines_asked_for_are_read_up_to_a_limit_on_all_their_bytes(label_bytes: int) -> None:
    line = b'waiting{a="%s"} 1\n' % (b"x" * label_bytes)
    fitting = MAX_READ_BYTES // (len(line) - 1)

    assert len(scan(line * fitting + b"other 1\n" * 9000, ["waiting"])) == fitting
    with pytest.raises(ScrapeError, match=f"more than {MAX_READ_BYTES} bytes of series .*, such as waiting") as caught:
        scan(line * (fitting + 1), ["waiting"])
    assert caught.value.reason is ScrapeFailure.TOO_LARGE


def test_lines_of_other_families_are_limited_in_number_only() -> None:
    lines = b"\n" * (MAX_LINES - 1) + b"other" * 400_000

    assert (scan(lines, ["waiting"]), mentions(lines, "waiting")) == ([], False)
    for look in (lambda text: scan(text, ["waiting"]), lambda text: mentions(text, "waiting")):
        with pytest.raises(ScrapeError, match=f"more than {MAX_LINES} lines") as caught:
            look(b"\n\n" + lines)
        assert caught.value.reason is ScrapeFailure.TOO_LARGE


def test_thousands_of_series_as_vllm_leaves_them_for_lora_adapters_are_read() -> None:
    labels = 'max_lora="4",running_lora_adapters="org/adapter-%04d",waiting_lora_adapters=""'
    exposition = "".join(f"vllm:lora_requests_info{{{labels % number}}} 1.7955e+09\n" for number in range(2500))

    assert len(scan(exposition.encode(), ["vllm:lora_requests_info"])) == 2500


@given(st.lists(st.sampled_from(["a_x 1", "# TYPE b_x gauge", "b_", "# HELP ab_x", " c_x{} 1", "x a_", "", "# a_x"])))
def test_of_several_prefixes_the_first_in_their_order_is_found_wherever_it_is(lines: list[str]) -> None:
    exposition = "\n".join(lines).encode()

    for prefixes in itertools.permutations(["a_", "b_", "ab_", "a", "c_"]):
        mentioned = [prefix for prefix in prefixes if mentions(exposition, prefix)]
        assert first_mentioned(exposition, prefixes) == (mentioned[0] if mentioned else None)


@pytest.mark.parametrize(
    "hostile",
    [
        b"\n" * (MAX_LINES - 2),
        b"\n waiting_" * (MAX_LINES - 2),
        b" " * 4_000_000,
        b"\n" + b" \t" * 2_000_000,
        b"waiting" * 600_000,
        b'other{a="' + b"\\" * 4_000_000,
    ],
    ids=["newlines", "near misses", "blanks", "indent", "one line", "backslashes"],
)
@pytest.mark.timeout(20)
def test_megabytes_of_near_misses_are_passed_over(hostile: bytes) -> None:
    # Quadratic work on 4 MB would take hours, not the milliseconds that it takes.
    assert scan(hostile + b"\nwaiting 1", ["waiting"]) == [Sample("waiting", {}, 1.0)]


@pytest.mark.parametrize("inside", [b'a="' + b"\\" * 65_000, b'a="' + b"\\x" * 32_000, b"a" * 65_000, b" " * 65_000])
@pytest.mark.timeout(20)
def test_the_longest_malformed_labels_are_refused_without_backtracking(inside: bytes) -> None:
    for _ in range(100):
        with pytest.raises(ScrapeError):
            scan(b"waiting{" + inside, ["waiting"])


@given(st.binary() | st.text('waiting{}="\\,# \t\n\r01.eN', max_size=60).map(str.encode))
def test_any_bytes_scan_or_raise_scrape_error(exposition: bytes) -> None:
    try:
        samples = scan(exposition, ["waiting", "w"])
    except ScrapeError:
        return
    assert {sample.family for sample in samples} <= {"waiting", "w"}


@given(st.lists(sample_lines() | other_lines), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_generated_expositions_read_as_prometheus_client_reads_them(
    lines: list[str], newline: str, final_newline: bool
) -> None:
    exposition = newline.join(lines) + newline * final_newline
    families = ["waiting", "a:b", "x_total"]

    assert read(exposition.encode(), families) == read_by_prometheus_client(exposition, families)


def test_openmetrics_reads_as_prometheus_client_reads_it() -> None:
    exposition = (
        "# HELP waiting Requests.\n# TYPE waiting gauge\n"
        'waiting{engine="0"} 3.0 1.5\nwaiting{engine="1"} 4.5e+0 2\n'
        "# TYPE tokens counter\n"
        'tokens_total{a="b # c"} 17.0 # {trace_id="x y"} 0.67 1520879607.789\ntokens_created{a="b # c"} 1.5\n'
        '# TYPE config info\nconfig_info{block_size="32"} 1.0\n# EOF\n'
    )
    families = ["waiting", "tokens_total", "tokens_created", "config_info"]

    expected = [
        comparable(sample.name, sample.labels, sample.value)
        for metric in parse_openmetrics(exposition)
        for sample in metric.samples
    ]

    assert read(exposition.encode(), families) == expected


@given(st.tuples(*(openmetrics_families(name) for name in ("waiting", "waiting_by", "tokens", "config"))), st.data())
def test_generated_openmetrics_reads_as_prometheus_client_reads_it(
    families: tuple[str, ...], data: st.DataObject
) -> None:
    exposition = "".join(families) + "# EOF\n"
    suffixed = [
        name + suffix for name in ("waiting", "tokens", "config") for suffix in ("", "_total", "_created", "_info")
    ]
    wanted = data.draw(st.lists(st.sampled_from([*suffixed, "absent"]), unique=True))

    expected = [
        comparable(sample.name, sample.labels, sample.value)
        for metric in parse_openmetrics(exposition)
        for sample in metric.samples
        if sample.name in wanted
    ]

    assert read(exposition.encode(), wanted) == expected
