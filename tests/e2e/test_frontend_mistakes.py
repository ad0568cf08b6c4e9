"""What `tidegate frontend` says of arguments that will not do."""

import subprocess
import sys
from pathlib import Path

import pytest

from processes import environment, tidegate

WITHOUT_THE_EXTRA = """\
import sys
sys.modules["tritonclient"] = None
from tidegate.cli.main import main
main(sys.argv[1:])
"""


def run(*arguments: str, program: tuple[str, ...] = ("-P", "-m", "tidegate")) -> tuple[int, str, str]:
    """Run it to its end; returns the exit status, and what it said on both outputs."""
    command = [sys.executable, *program, *arguments]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=30)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("--triton", "http://localhost:8001"),
            "--triton: 'http://localhost:8001' is no address. Write it as host:port",
        ),
        (("--triton", "localhost"), "is no address"),
        (("--triton", "localhost:70000"), "is no address"),
        (("--metrics", "localhost:8002"), "does not begin with http://"),
        (("--tokenizer", "/nowhere.json"), "/nowhere.json: cannot be read"),
        (("--chat-template", "/nowhere.json"), "/nowhere.json: cannot be read"),
        (("--port", "x"), "'x' is not a whole number"),
    ],
)
def test_a_mistake_is_one_line_with_the_way_out(arguments: tuple[str, str], says: str) -> None:
    status, _, errors = run("frontend", *arguments)

    assert status == 2
    assert says in errors
    assert errors.count("\n") == 1


def test_without_the_extra_it_says_what_to_install() -> None:
    program = ("-c", WITHOUT_THE_EXTRA)

    status, _, errors = run("frontend", program=program)
    assert status == 2
    assert "needs tritonclient, which is not installed. Run: pip install 'tidegate[triton]'" in errors

    status, says, _ = run("--help", program=program)
    assert (status, "frontend" in says) == (0, True)


async def test_it_ends_at_once_while_it_waits_for_triton() -> None:
    async with tidegate("frontend", "--triton", "127.0.0.1:1", "--port", "0") as process:
        await process.said("cannot be reached")

        process.process.terminate()

        assert await process.end(within_s=3) == 0
        assert not [line for line in process.lines if "Traceback" in line]


async def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    async with tidegate("frontend", "--triton", "127.0.0.1:1", "--port", "0") as process:
        port = (await process.said(r"http://127\.0\.0\.1:(\d+)"))[1]

        status, _, errors = run("frontend", "--port", port)

        assert (status, errors.partition(".")[0]) == (2, f"tidegate: port {port} of 127")
