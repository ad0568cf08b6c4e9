"""What --help shows on a terminal of 80 columns, and what is said of arguments that are wrong."""

import re
import subprocess
import sys
import textwrap

import pytest

from processes import environment
from tidegate.pool.endpoints_file import parse_endpoints

COMMANDS = (
    "",
    "up",
    "picker",
    "exporter",
    "frontend",
    "check",
    "sim",
    "bench",
    "bench demo",
    "bench load",
    "bench scrape",
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `tidegate` at 80 columns until it ends."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "tidegate", *arguments],
        env={**environment(), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns_and_has_our_words(command: str) -> None:
    ended = run(*command.split(), "--help")

    assert ended.returncode == 0
    lines = ended.stdout.splitlines()
    assert not [line for line in lines if len(line) > 80]
    assert not re.findall(r"<\w+|\d<=x|\[\[|\.\.\.$", ended.stdout.partition("\n")[2], re.MULTILINE)
    assert lines[0].startswith(f"Usage: tidegate {command}".strip())


def test_a_paragraph_is_filled_whatever_lines_the_source_has() -> None:
    text = run("up", "--help").stdout
    paragraph = text.split("\n\n")[2]

    filled = textwrap.fill(" ".join(paragraph.split()), 78, initial_indent="  ", subsequent_indent="  ")

    assert paragraph == filled


def test_the_example_of_an_endpoints_file_can_be_copied() -> None:
    text = run("up", "--help").stdout
    [example] = re.findall(r"^ *endpoints:\n(?: +.*\n)+", text, re.MULTILINE)

    endpoints = parse_endpoints(example.encode(), where="the help, as it is")
    assert parse_endpoints(textwrap.dedent(example).encode(), where="the help, dedented") == endpoints
    assert [(e.name, e.host, e.port, e.metrics_port, e.metrics_path, e.engine) for e in endpoints] == [
        ("triton-a", "10.0.0.5", 8000, 8002, "/metrics", "triton-tensorrt-llm"),
        ("vllm-b", "gpu-2", 8000, None, None, None),
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["wat"], "no such command 'wat'. See `tidegate --help`."),
        (["up", "--wat"], "no such option: --wat. See `tidegate up --help`."),
        (["bench", "wat"], "no such command 'wat'. See `tidegate bench --help`."),
        (
            ["up", "--port", "70000"],
            "invalid value for '--port': '70000' is not a whole number from 0 to 65535. See `tidegate up --help`.",
        ),
        (
            ["sim", "--num-blocks", "many"],
            "invalid value for '--num-blocks': 'many' is not a whole number of at least 1. See `tidegate sim --help`.",
        ),
        (
            ["sim", "--iteration-ms", "nan"],
            "invalid value for '--iteration-ms': 'nan' is not a number of at least 0. See `tidegate sim --help`.",
        ),
        (
            ["sim", "--capacity-policy", "wat"],
            (
                "invalid value for '--capacity-policy': 'wat' is not one of 'guaranteed-no-evict', 'max-utilization'. "
                "See `tidegate sim --help`."
            ),
        ),
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_one_line_and_exit_status_2(arguments: list[str], says: str) -> None:
    ended = run(*arguments)

    assert ended.stderr == f"tidegate: {says}\n"
    assert ended.stdout == ""
    assert ended.returncode == 2


@pytest.mark.parametrize("command", ["", "up", "check", "bench"])
def test_without_arguments_the_help_is_shown_and_the_exit_status_is_2(command: str) -> None:
    ended = run(*command.split())

    assert ended.stderr == run(*command.split(), "--help").stdout
    assert ended.returncode == 2
