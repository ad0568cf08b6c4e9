"""What `tidegate check` shows, at the widths that terminals have."""

import io

import pytest
from rich.console import Console

from tidegate.cli.check import parse_duration
from tidegate.cli.check_table import render_report, render_summary
from tidegate.protocol.conformance.finding import Finding, Level
from tidegate.protocol.conformance.watching import Movement
from tidegate.protocol.signals import LoadSignals, LoraSignals
from tidegate.publish.check.report import ServerReport

BLOCKS = "nv_trt_llm_kv_cache_block_metrics"
REPORT = ServerReport(
    url="http://[fd00::1]:8000",
    metrics_url="http://[fd00::1]:8002/metrics",
    engine="triton-tensorrt-llm",
    signals=LoadSignals(
        queued_requests=3,
        running_requests=1024,
        kv_utilization=0.123456,
        lora=LoraSignals(running=frozenset({"a", "b"}), waiting=frozenset(), max_adapters=4),
        observed_at=0.0,
    ),
    sources={
        "queued_requests": "r{t=active} - r{t=scheduled}",
        "running_requests": "nv_trt_llm_request_metrics{request_type=scheduled}",
        "kv_utilization": f"{BLOCKS}{{kv_cache_block_type=used}} / {BLOCKS}{{kv_cache_block_type=max}}",
    },
    findings=(
        Finding("syntax-error", Level.ERROR, "line 3, column 9: the value '[red]' is not a number", "Mend [/it]."),
        Finding("name-filter", Level.INFO, "name[] is ignored", ""),
    ),
    checked=True,
    movements=(
        Movement(name="queued_requests", first=3, last=0, least=0, most=12, changes=7),
        Movement(name="completions", first=None, last=None, least=None, most=None, changes=0),
    ),
)


def shown(report: ServerReport, width: int, *, color: bool = False) -> str:
    screen = io.StringIO()
    console = Console(
        file=screen, width=width, force_terminal=color, color_system="standard" if color else None, highlight=False
    )
    for part in render_report(report):
        console.print(part)
    return screen.getvalue()


def lines_of(report: ServerReport, width: int) -> list[str]:
    return [" ".join(line.split()) for line in shown(report, width).splitlines()]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_every_line_fits_and_says_what_is_so(width: int) -> None:
    text = shown(REPORT, width)

    assert max(len(line) for line in text.splitlines()) <= width
    words = " ".join(text.split())
    for said in (
        "http://[fd00::1]:8000 triton-tensorrt-llm not conformant",
        "metrics at http://[fd00::1]:8002/metrics",
        "queued_requests 3 r{t=active} - r{t=scheduled}",
        "kv_utilization 0.123",
        "block_size - -",
        "lora 2/4 -",
        "error syntax-error line 3, column 9: the value '[red]' is not a number Fix: Mend [/it].",
        "info name-filter name[] is ignored",
        "queued_requests 3 0 0 12 7",
        "completions - - - - 0",
    ):
        assert said in words


def test_a_source_that_is_too_long_breaks_where_a_reader_would() -> None:
    lines = lines_of(REPORT, 80)

    first = lines.index(f"kv_utilization 0.123 {BLOCKS}")
    assert lines[first + 1 : first + 4] == [
        "{kv_cache_block_type=used}",
        f"/ {BLOCKS}",
        "{kv_cache_block_type=max}",
    ]
    assert "running_requests 1024 nv_trt_llm_request_metrics{request_type=scheduled}" in lines


def test_colours_are_for_terminals_only() -> None:
    assert "\x1b[" not in shown(REPORT, 80)
    assert "\x1b[1;31m" in shown(REPORT, 80, color=True)


def test_a_server_that_could_not_be_checked_has_no_table() -> None:
    finding = Finding("unreachable", Level.ERROR, "cannot connect", "Look whether it runs.")
    report = ServerReport(
        url="http://gpu-1:8000", signals=LoadSignals(observed_at=0.0), sources={}, findings=(finding,), checked=False
    )

    assert lines_of(report, 80) == [
        "http://gpu-1:8000 could not be checked",
        "",
        "error unreachable",
        "cannot connect",
        "Fix: Look whether it runs.",
    ]
    assert render_summary([report, report]).plain == "0 of 2 servers conformant"


@pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("500ms", 0.5), ("2m", 120), ("3", 3), ("1.5s", 1.5)])
def test_times_are_written_with_a_unit_or_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)
