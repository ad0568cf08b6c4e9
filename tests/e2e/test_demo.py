"""`tidegate bench demo`: the main job as a user sees it, with a shorter workload."""

import functools
import os
import re
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from processes import alive, children, tidegate
from tidegate.bench import demo
from tidegate.bench.report import NOISE
from tidegate.bench.results import RequestResult
from tidegate.bench.workload import Arrival
from tidegate.cli import bench, main

RUNS = (demo.ROUND_ROBIN, demo.TIDEGATE)
FAST = (*demo.SERVER_OPTIONS, "--iteration-ms", "5")
SHORT = functools.partial(demo.DemoPlan, servers=2, duration_s=1.5, rate_per_s=12.0, server_options=FAST)
REQUESTS = 18


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give what the test starts a short TMPDIR of its own."""
    with tempfile.TemporaryDirectory(prefix="demo-") as directory:
        monkeypatch.setenv("TMPDIR", directory)
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


def figures(shown: str, label: str) -> list[float]:
    """Return a row of the table: one figure for each of RUNS."""
    [cells] = re.findall(rf"│ {label} +│(.*)│(.*)│", shown)
    return [float(cell.strip().removesuffix(" ms").replace(",", "")) for cell in cells]


def check_verdict(shown: str) -> None:
    """Check each word of the verdict against the table, whose figures are rounded to a millisecond."""
    [(lead, comparison)] = re.findall(
        r"^tidegate (.+) round robin: (.*) requests failed, against \d+ of \d+\.$", shown, re.MULTILINE
    )
    signs = set()
    for label in ("TTFT", "TPOT"):
        [words] = re.findall(rf"{label} ([^;]+);", comparison)
        for p, word in re.findall(r"(p\d\d) ([^,]+)", words):
            before, after = figures(shown, f"{label} {p}")
            if word == "a tie":
                assert abs(before - after) <= NOISE * max(before, after) + 1
                continue
            factor, direction = re.fullmatch(r"([\d.]+)x (faster|slower)", word).groups()
            slow, fast = (before, after) if direction == "faster" else (after, before)
            assert (slow - 0.5) / (fast + 0.5) - 0.01 <= float(factor) <= (slow + 0.5) / (fast - 0.5) + 0.01
            signs.add(direction)
    assert (
        lead
        == {
            frozenset(): "ties with",
            frozenset({"faster"}): "is better than",
            frozenset({"slower"}): "is worse than",
            frozenset({"faster", "slower"}): "is in part better, in part worse than",
        }[frozenset(signs)]
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_it_compares_two_runs_of_the_same_workload(
    seed: int, temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[Sequence[Arrival]] = []
    run_load = demo.run_load

    async def noted(url: str, arrivals: Sequence[Arrival], **options: Any) -> list[RequestResult]:
        sent.append(arrivals)
        return await run_load(url, arrivals, **options)

    monkeypatch.setattr(bench, "DemoPlan", SHORT)
    monkeypatch.setattr(demo, "run_load", noted)
    monkeypatch.setenv("COLUMNS", "100")

    with pytest.raises(SystemExit) as ended:
        main.main(["bench", "demo", "--seed", str(seed)])

    assert not ended.value.code
    shown = capsys.readouterr().out
    assert sent == [SHORT(seed=seed).arrivals()] * 2
    assert (
        re.findall(rf"^ *({'|'.join(RUNS)}) .*{REQUESTS}/{REQUESTS}", shown, re.MULTILINE) == SHORT(seed=seed).order()
    )
    idle, busiest = re.search(r"one server, idle:\n(.*)\nand at its busiest:\n(.*?)\n\n", shown, re.DOTALL).groups()
    for series in (idle, busiest):
        waiting, kv = series.splitlines()
        assert re.fullmatch(r'  nv_trt_llm_request_metrics\{.*request_type="waiting".*\} \d+', waiting)
        assert re.fullmatch(r'  nv_trt_llm_kv_cache_block_metrics\{.*="fraction".*\} [01](\.\d+)?', kv)
    assert [line.rpartition(" ")[2] for line in idle.splitlines()] == ["0", "0"]
    assert float(busiest.rpartition(" ")[2]) > 0
    assert re.search(rf"┃ +┃ +{RUNS[0]} ┃ +{RUNS[1]} ┃", shown)
    assert figures(shown, "requests") == [REQUESTS] * 2
    assert figures(shown, "errors") == [0, 0]
    served = [figures(shown, f"served by sim-{number}") for number in range(2)]
    assert [sum(run) for run in zip(*served, strict=True)] == [REQUESTS] * 2
    check_verdict(shown)
    assert not children(os.getpid())
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_and_leaves_nothing_behind(number: signal.Signals, temporary: Path) -> None:
    async with tidegate("bench", "demo") as process:
        await process.said("4 simulated TensorRT-LLM servers")
        process.process.send_signal(number)
        assert await process.end(within_s=5) == 130
        family = children(process.process.pid)
    assert len(process.lines) == 1
    assert not alive(family)
    assert not list(temporary.iterdir())
