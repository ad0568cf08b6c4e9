"""`tidegate bench load` as a user sees it: processes, exit codes, files."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from processes import Tidegate, environment, free_port, sim, tidegate, until
from servers import model_server

QUICK = ("--rate", "40", "--warm-up", "0.5", "--output-tokens", "3..8", "--input-tokens", "20")


@contextlib.asynccontextmanager
async def load(*arguments: str) -> AsyncIterator[Tidegate]:
    async with tidegate("bench", "load", *arguments) as process:
        yield process


def rows(lines: list[str]) -> list[str]:
    """Return what the rows of the tables are called."""
    return [found[1] for line in lines if (found := re.match(r"(\S.*?)  +\S", line))]


async def test_a_run_prints_its_tables_and_writes_json_and_pictures(tmp_path: Path) -> None:
    file, pictures = tmp_path / "load.json", tmp_path / "deep" / "plots"

    async with sim() as (_, url):
        files = ("--json", str(file), "--plots", str(pictures))
        async with load(url, *QUICK, "--requests", "60", "--slo", "ttft=60", "--label", "first", *files) as process:
            assert await process.end() == 0

    assert "first" in process.lines
    assert rows(process.lines) == [
        *("TTFT", "TPOT", "end to end", "sent late", "requests", "failed", "answered/s", "goodput, requests/s"),
        *("output tokens/s", "output tokens", "input tokens", "of them cached", "under way at most"),
        f"served by {url.removeprefix('http://')}",
    ]
    found = json.loads(file.read_bytes())
    assert (found["format"], found["complete"], found["label"]) == ("tidegate-bench-load/1", True, "first")
    [target] = found["targets"]
    assert (target["requests"], target["failed"], target["kept_slo"]) == (60, 0, 60)
    assert (target["model"], target["requests_counted_by_server"]) == ("tensorrt_llm", 60)
    assert target["ttft_s"]["count"] == len(found["requests"]) == 60
    assert all(request["at_s"] >= 0.5 for request in found["requests"])
    assert sorted(file.name for file in pictures.iterdir()) == [
        "latencies.png",
        "load-over-time.png",
        "ttft-over-time.png",
    ]


async def test_two_targets_are_compared_and_the_cpu_of_the_first_is_told(tmp_path: Path) -> None:
    file = tmp_path / "load.json"
    async with sim() as (server, url):
        triton = f"{url}/v2/models/tensorrt_llm/generate_stream"
        options = ("--requests", "60", "--cpu-of", str(server.process.pid), "--completions", "--json", str(file))
        async with load(url, "--against", triton, *QUICK, *options) as process:
            assert await process.end() == 0

    shown = "\n".join(process.lines)
    assert re.search(r"adds to generate_stream, and its 95 % interval over (29|30) pairs", shown)
    assert re.search(rf"Process {server.process.pid} took .* per token streamed through completions\.", shown)
    assert "generate_stream did not count the tokens of 30 answers" in shown
    found = json.loads(file.read_bytes())
    assert [(target["api"], target["failed"]) for target in found["targets"]] == [
        ("completions", 0),
        ("generate_stream", 0),
    ]
    assert found["server_cpu"]["streamed_events"] > 0
    assert found["added"]["ttft_s"]["p50"]["low"] <= found["added"]["ttft_s"]["p50"]["high"]


async def test_the_exit_status_tells_that_every_request_failed() -> None:
    async with model_server("a") as server:
        server.status = 503
        async with load(server.url, "--model", "m", *QUICK, "--requests", "5") as process:
            assert await process.end() == 1
    assert any(line.startswith("failed") and "5 (5 status 503)" in line for line in process.lines)
    assert any('status 503: {"served_by": "a"' in line for line in process.lines)


async def test_nobody_there_is_a_failure_of_every_request_too() -> None:
    async with load(f"http://127.0.0.1:{free_port()}", "--model", "m", *QUICK, "--requests", "5") as process:
        assert await process.end() == 1
    assert any("connect: Connection refused" in line for line in process.lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c_reports_what_there_is(number: signal.Signals, tmp_path: Path) -> None:
    file = tmp_path / "load.json"
    async with sim() as (_, url):
        options = ("--rate", "40", "--warm-up", "0", "--duration", "600", "--output-tokens", "20", "--json", str(file))
        async with load(url, *options) as process:
            await process.said(r"[1-9]\d* of \d+ ended, \d+ under way")
            process.process.send_signal(number)
            assert await process.end() == 130

    assert any(re.match(r"Stopped early: [1-9]\d* of 2\d,\d+ requests had ended", line) for line in process.lines)
    found = json.loads(file.read_bytes())
    assert not found["complete"]
    assert found["targets"][0]["requests"] == len(found["requests"]) > 0


async def test_ctrl_c_before_the_first_request_ends_without_a_word() -> None:
    async with model_server("a") as server:
        server.release.clear()  # of /v1/models
        async with load(server.url) as process:

            async def has_asked() -> bool:
                return server.arrived > 0

            await until(has_asked)
            process.process.send_signal(signal.SIGINT)
            assert await process.end() == 130
    assert process.lines == []


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "tidegate", "bench", "load", *arguments],
        env={**environment(), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


URL = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ftp://x"], "'ftp://x' is not an http URL. Write it like http://127.0.0.1:8080."),
        ([URL, "--rate", "0"], "--rate: 0 is out of range. Use 0.001 to 1,000,000."),
        ([URL, "--timeout", "1e9"], "--timeout: 1e+09 is out of range. Use 0.001 to 1,000,000."),
        ([URL, "--duration", "5", "--requests", "5"], "--duration: given beside --requests. Use one of both."),
        (
            [URL, "--input-tokens", "many"],
            (
                "--input-tokens: 'many' is not a distribution of lengths. "
                "Use 256, 100..500 (evenly spread) or lognormal:200,0.8 (median, sigma)."
            ),
        ),
        ([URL, "--slo", "1"], "--slo: '1' is not a limit. Use ttft, tpot and e2e with seconds: ttft=0.5,tpot=0.05."),
        ([URL, "--arrivals", "even"], "--arrivals: 'even' is no kind of arrivals. Use poisson, bursty or bursty:3."),
        ([URL, "--model", "m", "--against", URL + "/"], "--against: it is the same as URL. Name another server."),
        (
            [URL, "--model", "m", "--cpu-of", "4194305"],
            "--cpu-of: there is no process 4194305. Give the pid of a server.",
        ),
        ([URL, "--json", "/"], "--json: cannot write /: it is a directory. Give another path."),
        (
            [URL, "--plots", "/dev/null/x"],
            "--plots: cannot write /dev/null/x: Not a directory. Give another path.",
        ),
        (
            [URL],
            (
                "http://127.0.0.1:9/v1/models cannot be read: Connection refused. "
                "Start the server, mend the URL, or name the model with --model."
            ),
        ),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else "",
)
def test_a_wrong_argument_is_one_line_before_anything_is_sent(arguments: list[str], says: str) -> None:
    ended = run(*arguments)

    assert ended.stderr == f"tidegate: {says}\n"
    assert (ended.stdout, ended.returncode) == ("", 2)


def test_more_connections_than_files_are_refused() -> None:
    ended = run(URL, "--max-open", str(10**9))

    assert re.search(
        r"--max-open: a process may open \d+ files here, too few for 1000000000\. Use \d+ at", ended.stderr
    )
    assert ended.returncode == 2


def test_without_matplotlib_plots_are_refused_with_the_way_to_get_it(tmp_path: Path) -> None:
    package = tmp_path / "path" / "matplotlib"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ModuleNotFoundError(name='matplotlib')\n")

    ended = run(URL, "--plots", str(tmp_path / "plots"), PYTHONPATH=os.fspath(package.parent))

    problem = "plots need matplotlib, which is not installed"
    fix = "Run pip install 'tidegate[bench]', or leave --plots out."
    assert ended.stderr == f"tidegate: --plots: {problem}. {fix}\n"
    assert ended.returncode == 2
    assert not (tmp_path / "plots").exists()
