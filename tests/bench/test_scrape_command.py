"""`tidegate bench scrape` as a user sees it, with small settings."""

import functools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from processes import alive, children, environment, tidegate
from tidegate.bench import scrape_fleet
from tidegate.bench.scrape import ScrapePlan
from tidegate.cli import bench, main

SMALL = functools.partial(ScrapePlan, rounds=2, batch_s=0.001, exporter_pairs=2)
TITLES = ["Triton 7 kB", "vLLM 50 kB", "vLLM 84 kB", "vLLM (made) 1.0 MB"]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give what the test starts a short TMPDIR of its own; after pytest has made its own in the usual one."""
    with tempfile.TemporaryDirectory(prefix="scrape-") as directory:
        monkeypatch.setenv("TMPDIR", directory)
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


def test_it_prints_tables_and_writes_the_figures(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "ScrapePlan", SMALL)
    monkeypatch.setattr(scrape_fleet, "WARM_UP_S", 0.0)
    monkeypatch.setenv("COLUMNS", "120")  # Few short rounds on a busy machine give spreads of many digits.
    file = tmp_path / "figures.json"

    with pytest.raises(SystemExit) as ended:
        main.main(["bench", "scrape", "--endpoints", "5", "--rate", "20", "--seconds", "0.3", "--json", str(file)])

    assert not ended.value.code
    shown = capsys.readouterr().out
    rows = re.findall(r"^│ (.*?) *│", shown, re.MULTILINE)
    fleet = ["scrapes/s", "missed", "cores", "loop late, p50", "loop late, p99", "loop late, longest"]
    fleet += ["of own work, p99", "of own work, longest"]
    assert rows == [*TITLES, *TITLES, *fleet, "Triton (no composites) 7 kB", "vLLM 84 kB"]
    for sentence in ("Parsing takes", "Scraping takes", "5 endpoints at 20 Hz, vLLM 84 kB:", "The exporter adds"):
        assert re.search(rf"^{sentence} .*\.$", shown, re.MULTILINE)
    figures = json.loads(file.read_bytes())
    assert figures["plan"] == {
        "endpoints": 5,
        "rate_hz": 20.0,
        "seconds": 0.3,
        "rounds": 2,
        "batch_s": 0.001,
        "exporter_pairs": 2,
    }
    assert [[cost["exposition"] for cost in figures[which]] for which in ("parses", "scrapes")] == [TITLES, TITLES]
    for run in figures["fleet"]:
        assert run["missed_in_all"] == 0
        assert run["reported_in_all"] <= run["answered_in_all"] <= run["reported_in_all"] + 5
    for time in figures["exporter"]:
        assert time["fetched"] == 2 * time["gets"] == 4
    assert not children(os.getpid())
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_and_leaves_nothing_behind(number: signal.Signals, temporary: Path) -> None:
    async with tidegate("bench", "scrape", "--endpoints", "5") as process:
        await process.said("CPU per parse")
        family = children(process.process.pid)
        process.process.send_signal(number)
        assert await process.end(within_s=5) == 130
    assert family
    assert not alive(family)
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rate", "0"], "--rate: 0 is out of range. Use more than 0, 100 at most."),
        (["--rate", "101"], "--rate: 101 is out of range. Use more than 0, 100 at most."),
        (["--seconds", "0"], "--seconds: nothing is measured in 0 s. Use 1 or more."),
        (
            ["--endpoints", "5001"],
            (
                "invalid value for '--endpoints': '5001' is not a whole number from 1 to 5000. "
                "See `tidegate bench scrape --help`."
            ),
        ),
        (
            ["--json", "/nowhere/f.json"],
            "--json: cannot write /nowhere/f.json: there is no directory /nowhere. Give another path.",
        ),
        (["--json", "/"], "--json: cannot write /: it is a directory. Give another path."),
        (
            ["--endpoints", "300"],
            (
                "--endpoints: a process may open 600 files here, too few for 300. "
                "Use 200 at most, or raise the limit (ulimit -n)."
            ),
        ),
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_one_line_before_anything_is_measured(arguments: list[str], says: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "tidegate", "bench", "scrape", *arguments],
        env=environment(),
        preexec_fn=functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, (600, 600)),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert ended.stderr == f"tidegate: {says}\n"
    assert ended.stdout == ""
    assert ended.returncode == 2
