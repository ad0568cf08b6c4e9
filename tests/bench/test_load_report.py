"""Figures of a load run → tables and sentences, JSON, pictures."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from tidegate.bench.lengths import parse_lengths
from tidegate.bench.load_compare import compare
from tidegate.bench.load_figures import CpuUse, figures_of, generator_figures
from tidegate.bench.load_json import render_json
from tidegate.bench.load_plan import LoadPlan
from tidegate.bench.load_plots import write_plots
from tidegate.bench.load_report import render_load
from tidegate.bench.load_run import MEASURES, LoadFigures, LoadSetup
from tidegate.bench.results import ErrorKind, RequestResult
from tidegate.bench.slo import parse_slo
from tidegate.bench.target import Target, parse_target

GOLDEN = Path(__file__).parent / "golden"
PLAN = LoadPlan(
    seed=1,
    rate_per_s=20,
    variation=3.0,
    requests=None,
    duration_s=30,
    warm_up_s=5,
    input_tokens=parse_lengths("100..500"),
    output_tokens=parse_lengths("lognormal:60,0.8"),
    shared_prefix_tokens=512,
    prefixes=4,
)
FRONTEND = parse_target("http://127.0.0.1:9000", model="tensorrt_llm")
TRITON = parse_target("http://127.0.0.1:8000/v2/models/tensorrt_llm/generate_stream", model="")
STARTED = datetime(2026, 11, 25, 14, 0, tzinfo=UTC)


def answered(k: int, *, target: Target, more_s: float = 0.0) -> RequestResult:
    counted = target is FRONTEND
    return RequestResult(
        at_s=5 + k / 10,
        late_s=0.0002 + k / 1e6,
        status=200,
        error=None,
        ttft_s=0.080 + k / 1000 + more_s,
        e2e_s=1.2 + k / 100 + more_s,
        tpot_s=0.0123 + more_s / 100,
        output_tokens=60 + k % 7,
        served_by="triton-a" if counted else None,
        counted=counted,
        prompt_tokens=800 if counted else None,
        cached_tokens=512 if counted else None,
    )


def failed(result: RequestResult, kind: ErrorKind, status: int | None, detail: str) -> RequestResult:
    return replace(
        result, error=kind, status=status, detail=detail, ttft_s=None, tpot_s=None, e2e_s=0.3, output_tokens=0
    )


def figures(*targets: Target, planned: int = 300, **more: Any) -> LoadFigures:
    """Return those of 300 requests to each target; the first fails a few."""
    of = [[answered(k, target=target, more_s=0.0021 * (target is FRONTEND)) for k in range(300)] for target in targets]
    pairs = {
        name: list(zip(*([getattr(result, f"{name}_s") for result in results] for results in of), strict=True))
        for name in MEASURES
    }
    added = {name: compare(pairs[name]) for name in MEASURES} if len(targets) == 2 else {}
    of[0][7] = failed(of[0][7], ErrorKind.STATUS, 503, "status 503: no\x1b[31m\nendpoint [red] " + "x" * 300)
    of[0][8] = failed(of[0][8], ErrorKind.TIMEOUT, 200, "no complete answer within 5 s")
    of[0][9] = failed(of[0][9], ErrorKind.TIMEOUT, 200, "no complete answer within 5 s")
    setup = LoadSetup(plan=PLAN, targets=targets, slo=parse_slo("ttft=0.3,tpot=0.02"), max_open=1000, cpu_of=4242)
    given: dict[str, Any] = {
        "setup": setup,
        "planned": planned * len(targets),
        "cut_off": 0,
        "targets": [
            figures_of(name, target, results, slo=setup.slo)
            for name, target, results in zip(setup.names, targets, of, strict=True)
        ],
        "results": of,
        "warm_up": [[replace(answered(k, target=target), at_s=k / 10) for k in range(50)] for target in targets],
        "generator": generator_figures(of[0], CpuUse(seconds=3.3, elapsed_s=30.0, streamed=150_000), 0.25),
        "server_cpu": CpuUse(seconds=12.0, elapsed_s=30.0, streamed=100_000),
        "added": added,
    }
    return LoadFigures(**given | more)


def rendered(found: LoadFigures) -> str:
    out = StringIO()
    console = Console(file=out, width=80, color_system=None)
    for part in render_load(found):
        console.print(part, highlight=False, soft_wrap=isinstance(part, Text))
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


@pytest.mark.parametrize(("targets", "file"), [((FRONTEND,), "load.txt"), ((FRONTEND, TRITON), "load-against.txt")])
def test_the_tables_are_the_golden_files(targets: tuple[Target, ...], file: str) -> None:
    assert rendered(figures(*targets)) == (GOLDEN / file).read_text()


def test_tables_are_no_wider_than_80_columns() -> None:
    tables = [line for line in rendered(figures(FRONTEND, TRITON)).splitlines() if "─" in line or " ms" in line]

    assert max(len(line) for line in tables if not line.startswith("  ")) <= 80


def test_targets_of_one_address_are_told_apart_by_their_api() -> None:
    same = parse_target("http://127.0.0.1:9000/v2/models/m/generate_stream", model="")

    assert LoadSetup(plan=PLAN, targets=[FRONTEND, same], max_open=1).names == ["chat completions", "generate_stream"]


def test_a_run_that_was_cut_off_says_what_is_missing() -> None:
    shown = rendered(figures(FRONTEND, planned=1000, cut_off=12))

    assert "Stopped early: 300 of 1,000 requests had ended, 12 were under way." in shown


def test_a_server_process_that_ended_is_told() -> None:
    assert "Process 4242 ended during the run" in rendered(figures(FRONTEND, server_cpu=None))


def test_names_of_servers_are_few_and_do_not_act_on_a_terminal() -> None:
    found = figures(FRONTEND)
    names = {f"\x1b[2Jserver-{k:02}": 100 - k for k in range(20)}

    shown = rendered(replace(found, targets=[replace(found.targets[0], served_by=names)]))

    assert "\x1b" not in shown
    assert shown.count("served by ?[2Jserver-") == 16
    assert re.search(r"^by 4 others +330$", shown, re.MULTILINE)


def test_without_any_pair_there_is_no_comparison() -> None:
    found = figures(FRONTEND, TRITON, added=dict.fromkeys(MEASURES))

    assert "No comparison: no pair of requests was answered by both." in rendered(found)


def test_the_json_is_the_golden_file() -> None:
    document = json.loads(render_json(figures(FRONTEND, TRITON), started=STARTED))

    requests = document.pop("requests")
    for machine in ("tidegate", "python", "cpus"):
        assert document.pop(machine)
    assert document == json.loads((GOLDEN / "load-against.json").read_bytes())
    assert len(requests) == 600
    assert requests[7] == {
        "target": 0,
        "at_s": 5.7,
        "late_s": pytest.approx(0.000207),
        "status": 503,
        "error": "status",
        "detail": "status 503: no\x1b[31m\nendpoint [red] " + "x" * 300,
        "ttft_s": None,
        "tpot_s": None,
        "e2e_s": 0.3,
        "output_tokens": 0,
        "input_tokens": 800,
        "cached_tokens": 512,
        "served_by": "triton-a",
    }


@pytest.mark.parametrize(
    "found",
    [
        figures(FRONTEND, TRITON),
        figures(FRONTEND),
        replace(figures(FRONTEND), results=[[]], warm_up=[[]]),
        replace(
            figures(FRONTEND), results=[[failed(answered(1, target=FRONTEND), ErrorKind.CONNECT, None, "refused")]]
        ),
    ],
    ids=["two", "one", "none", "failed"],
)
def test_pictures_are_pngs_with_the_figures_in_them(found: LoadFigures, tmp_path: Path) -> None:
    files = write_plots(found, tmp_path)

    assert [file.name for file in files] == ["ttft-over-time.png", "latencies.png", "load-over-time.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
