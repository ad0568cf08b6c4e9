"""What a user of `tidegate picker` gets wrong is one line that names it, and exit status 2."""

import socket
from pathlib import Path

import pytest

from processes import tidegate

FREE = ("--host", "127.0.0.1", "--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0")


async def complaint(*arguments: str) -> str:
    """Run it on free ports where the arguments do not say otherwise; returns the one line it says."""
    async with tidegate("picker", "http://127.0.0.1:1", *FREE, *arguments) as process:
        assert await process.end() == 2
    [line] = process.lines
    assert line.startswith("tidegate: ")
    return line


@pytest.mark.parametrize("option", ["--grpc-address", "--admin-address"])
@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("localhost", "HOST:PORT"),
        ("28195", "HOST:PORT"),
        (":28195", "HOST:PORT"),
        ("localhost:", "HOST:PORT"),
        ("localhost:http", "HOST:PORT"),
        ("localhost:-1", "HOST:PORT"),
        ("::1:28195", "[IPV6]:PORT"),
        ("[]:28195", "HOST:PORT"),
        ("localhost:99999", "out of range"),
        (f"localhost:{'9' * 5000}", "out of range"),
        ("unix:", "1 to 107 bytes"),
        (f"unix:/tmp/{'x' * 103}", "1 to 107 bytes"),
        ("unix:/nonexistent/picker.sock", "unix:/nonexistent/picker.sock"),
        ("no..host:0", "no..host:0"),
    ],
    ids=lambda value: value[:20],
)
async def test_a_wrong_address_is_one_line_and_exit_status_2(option: str, address: str, says: str) -> None:
    line = await complaint(option, address)
    assert f"cannot listen on {address}" in line.replace("'", "")
    assert says in line


@pytest.mark.parametrize("option", ["--grpc-port", "--grpc-health-port", "--metrics-port", "--admin-address"])
async def test_a_port_in_use_is_one_line_and_exit_status_2(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = await complaint(option, address if option == "--admin-address" else address.rpartition(":")[2])
    assert f"cannot listen on {address}" in line


async def test_it_listens_on_ipv6_and_on_unix_sockets_of_the_longest_path(tmp_path: Path) -> None:
    longest = f"{tmp_path}/{'x' * (106 - len(str(tmp_path)))}"
    addresses = ("--grpc-address", "[::1]:0", "--admin-address", "[::1]:0", "--admin-address", f"unix:{longest}")
    async with tidegate("picker", "http://127.0.0.1:1", *addresses) as picker:
        await picker.said(rf"answers gRPC on \[::1\]:[1-9]\d*, HTTP on \[::1\]:[1-9]\d*, unix:{longest}$")


async def test_an_envoy_endpoints_file_that_cannot_be_written_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / "endpoints.json"
    assert f"--envoy-endpoints: cannot write {nowhere}: there is no directory {nowhere.parent}. Give" in (
        await complaint("--envoy-endpoints", str(nowhere))
    )
    assert f"cannot write {tmp_path}: it is a directory" in await complaint("--envoy-endpoints", str(tmp_path))
