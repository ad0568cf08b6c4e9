"""What a user gets wrong is one line that names it and says what to do, and exit status 2."""

import socket
import tempfile
from pathlib import Path

import pytest

from processes import tidegate

ENTRY = "{name: a, address: 127.0.0.1, port: 8000}"
BOMB = """\
a: &a [x, x, x, x, x, x, x, x, x]
b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]
c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]
endpoints: *c
"""


async def complaint(*arguments: str) -> str:
    """Run `tidegate up`; returns the one line it says."""
    async with tidegate("up", *arguments) as process:
        assert await process.end() == 2
    [line] = process.lines
    assert line.startswith("tidegate: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["localhost:8000"], ["'localhost:8000'", "Write it as http://"]),
        (["http://localhost:80000"], ["'http://localhost:80000'", "no number from 1 to 65535", "Write it as http://"]),
        (["https://gpu-1"], ["'https://gpu-1'", "https is not supported", "plain HTTP port"]),
        (["http://gpu-1:8000/v1"], ["'http://gpu-1:8000/v1' has a path", "http://gpu-1:8000"]),
        (["http://gpu-1:8000", "http://gpu-1:8000"], ["gpu-1:8000", "listed twice"]),
        (["http://gpu-1,metric=http://gpu-1:1"], ["unknown option 'metric'", "URL,metrics=URL"]),
        (["http://gpu-1", "--demo", "2"], ["--demo", "Leave out the URLs"]),
        (["http://gpu-1", "--endpoints", "pool.yaml"], ["given twice", "either URLs or --endpoints"]),
        (["http://gpu-1", "--envoy", "/nonexistent"], ["no Envoy at /nonexistent", "--envoy"]),
        (["http://gpu-1", "--envoy", "/bin/false"], ["/bin/false does not tell its --version", "--envoy"]),
        (["http://gpu-1", "--port", "9090"], ["port 9090", "--port", "--admin-port"]),
        (["http://gpu-1", "--host", "localhost"], ["'localhost'", "not an IP address", "127.0.0.1"]),
        (["--demo", "0"], ["no model server", "http://localhost:8000", "--endpoints"]),
    ],
)
async def test_a_wrong_argument_is_one_line_and_exit_status_2(arguments: list[str], says: list[str]) -> None:
    line = await complaint(*arguments)
    assert not [part for part in says if part not in line]


async def test_a_file_that_is_no_program_is_one_line_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    envoy = tmp_path / "envoy"
    envoy.write_bytes(b"\x7fELF of another machine")
    envoy.chmod(0o755)
    with tempfile.TemporaryDirectory(prefix="up-") as temporary:
        monkeypatch.setenv("TMPDIR", temporary)
        line = await complaint("http://gpu-1", "--port", "0", "--admin-port", "0", "--envoy", str(envoy))
        assert not list(Path(temporary).iterdir())
    assert f"{envoy} does not run: Exec format error" in line


@pytest.mark.parametrize("option", ["--port", "--admin-port"])
async def test_a_port_in_use_is_one_line_and_exit_status_2(option: str) -> None:
    other = {"--port": "--admin-port", "--admin-port": "--port"}[option]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = await complaint("http://gpu-1", other, "0", option, str(port))
    assert f"127.0.0.1:{port}" in line
    assert "in use" in line
    assert f"Give another {option}" in line


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f"endpoints: [{ENTRY[:-1]}, colour: red}}]", ["endpoints[0]", "`colour`", "--help"]),
        (f"endpoints: [{ENTRY.replace('8000', '80000')}]", ["endpoints[0]", "port", "65535", "--help"]),
        (f"endpoints: [{ENTRY}, {ENTRY}]", ["endpoint 'a' (127.0.0.1:8000)", "listed twice"]),
        ("endpoints: [", ["not YAML", "--help"]),
        (BOMB, ["aliases", "not allowed", "--help"]),
        ("", ["endpoints: must be a list", "--help"]),
        (None, ["cannot be read", "No such file", "Give the path"]),
    ],
    ids=["unknown key", "bad port", "duplicate", "not YAML", "alias bomb", "empty", "missing"],
)
async def test_a_bad_endpoints_file_is_one_line_and_exit_status_2(
    content: str | None, says: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "pool.yaml"
    if content is not None:
        file.write_text(content)
    line = await complaint("--endpoints", str(file))
    assert not [part for part in [str(file), *says] if part not in line]


async def test_without_arguments_it_shows_the_help() -> None:
    async with tidegate("up") as process:
        assert await process.end() == 2
    assert "tidegate up http://gpu-1:8000 http://gpu-2:8000" in "\n".join(process.lines)
