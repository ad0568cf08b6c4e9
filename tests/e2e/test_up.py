"""`tidegate up` starts, shows what it does, and ends with everything it started."""

import asyncio
import contextlib
import fcntl
import os
import re
import resource
import signal
import socket
import sys
import tempfile
import termios
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from clients import Answer, complete, open_session
from processes import Gateway, alive, children, environment, gateway, tidegate, until
from servers import model_server

ENDLESS = 100_000
COLUMNS = ("endpoint", "state", "queued", "running", "KV", "in flight", "picks/s", "age")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give what the test starts a short TMPDIR of its own."""
    with tempfile.TemporaryDirectory(prefix="up-") as directory:
        monkeypatch.setenv("TMPDIR", directory)
        yield Path(directory)


@contextlib.asynccontextmanager
async def streams(up: Gateway, count: int) -> AsyncIterator[list[asyncio.Task[Answer]]]:
    """Hold streams open that have begun and will not end by themselves."""

    async def all_run() -> bool:
        endpoints = (await up.pool()).get("endpoints", {}).values()
        return sum(endpoint["running_requests"] or 0 for endpoint in endpoints) == count

    async with open_session() as session, asyncio.TaskGroup() as tasks:
        asked = [complete(session, up.url, stream=True, max_tokens=ENDLESS) for _ in range(count)]
        answers = [tasks.create_task(answer) for answer in asked]
        await until(all_run)
        yield answers


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_everything_soon_and_well_even_with_open_streams(
    number: signal.Signals, temporary: Path
) -> None:
    async with gateway("--demo", "2") as up:
        await up.ready()
        family = children(up.process.pid)
        async with streams(up, 4) as answers:
            up.process.send_signal(number)
            assert await up.end(within_s=5) == 0

    assert len(family) == 4
    assert not alive(family)
    assert not any(answer.result().whole for answer in answers)
    assert not list(temporary.iterdir())


async def test_a_signal_while_servers_start_ends_it_well() -> None:
    async with tidegate("up", "--port", "0", "--admin-port", "0", "--demo", "4") as up:
        await up.said("starting 4 simulated")

        async def some_run() -> dict[int, str]:
            return children(up.process.pid)

        family = await until(some_run)
        up.process.send_signal(signal.SIGINT)
        assert await up.end(within_s=5) == 0
    assert not alive(family)
    assert not [line for line in up.lines if "Traceback" in line]


async def test_servers_that_hang_do_not_add_up_to_a_long_end() -> None:
    async with gateway("--demo", "4") as up:
        await up.ready()
        family = children(up.process.pid)
        hung = [pid for pid, command in family.items() if " sim " in command]
        for pid in hung:
            os.kill(pid, signal.SIGSTOP)
        up.process.send_signal(signal.SIGINT)
        assert await up.end(within_s=5) == 0
    assert len(hung) == 4
    assert not alive(family)


async def test_nothing_outlives_it_when_it_is_killed(temporary: Path) -> None:
    async with gateway("--demo", "2") as up:
        await up.ready()
        family = children(up.process.pid)
        async with streams(up, 4) as answers:
            up.process.kill()
            await up.end()

            async def are_gone() -> bool:
                return not alive(family)

            await until(are_gone, within_s=10)

    assert len(family) == 4
    assert not any(answer.result().whole for answer in answers)


@contextlib.asynccontextmanager
async def on_a_terminal(*arguments: str) -> AsyncIterator[tuple[Process, Callable[[], str], int]]:
    """Run `tidegate up` on a terminal of its own; yields it, what reads the screen so far, and the keyboard."""
    keyboard, terminal = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "tidegate", "up", "--port", "0", "--admin-port", "0", *arguments),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**environment(), "TERM": "xterm"},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(terminal)
    shown = bytearray()
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            shown.extend(os.read(keyboard, 65536))
        except OSError:  # the other end is closed
            loop.remove_reader(keyboard)

    loop.add_reader(keyboard, read)
    try:
        yield process, lambda: re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="replace")), keyboard
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        loop.remove_reader(keyboard)
        os.close(keyboard)


async def test_on_a_terminal_it_shows_a_live_table_and_ends_with_ctrl_c() -> None:
    async with model_server("a") as server:
        server.queued, server.running, server.kv = 7, 3, 0.25
        async with on_a_terminal(server.url) as (process, screen, keyboard):
            heading = r"\W+".join(re.escape(column) for column in COLUMNS)
            row = rf"{re.escape(server.address)}\W+ready\W+7\W+3\W+25 %\W+0\W+0\W+0\.\d s"

            async def is_shown() -> bool:
                return bool(re.search(rf"{heading}.*{row}", screen(), re.DOTALL))

            await until(is_shown)
            family = children(process.pid)
            os.write(keyboard, b"\x03")
            assert await asyncio.wait_for(process.wait(), 5) == 0
    assert len(family) == 2
    assert not alive(family)


async def test_closing_the_terminal_ends_it_and_leaves_nothing_behind(temporary: Path) -> None:
    async with model_server("a") as server, on_a_terminal(server.url) as (process, screen, keyboard):

        async def is_shown() -> bool:
            return "Ctrl-C" in screen()

        await until(is_shown)
        family = children(process.pid)
        asyncio.get_running_loop().remove_reader(keyboard)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, keyboard)
        os.close(nothing)
        await asyncio.wait_for(process.wait(), 5)
    assert len(family) == 2
    assert not alive(family)
    assert not list(temporary.iterdir())


async def test_under_nohup_it_goes_on_when_the_terminal_is_closed() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with model_server("a") as server, gateway(server.url) as up:
            await up.ready()
            up.process.send_signal(signal.SIGHUP)
            seen = server.scraped

            async def is_scraped_on() -> bool:
                return server.scraped > seen + 5

            await until(is_scraped_on)
            async with aiohttp.request("POST", up.url) as answer:
                assert answer.status == 200
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_modules_of_the_current_directory_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise ImportError('not the one of the standard library')")
    monkeypatch.chdir(tmp_path)
    async with gateway("--demo", "1") as up:
        await up.ready()


async def test_on_a_terminal_it_shows_why_envoy_does_not_start(tmp_path: Path, temporary: Path) -> None:
    envoy = tmp_path / "envoy"
    envoy.write_text("#!/bin/sh\n[ $1 = --version ] || { echo out of luck; exit 1; }\n")
    envoy.chmod(0o755)
    async with on_a_terminal("http://gpu-1", "--envoy", str(envoy)) as (process, screen, keyboard):

        async def is_shown() -> bool:
            return "envoy exited with status 1; starting it again. Its last words: out of luck" in screen()

        await until(is_shown)
        os.write(keyboard, b"\x03")
        assert await asyncio.wait_for(process.wait(), 5) == 0
    assert not list(temporary.iterdir())


async def test_it_and_its_programs_may_open_as_many_files_as_the_hard_limit_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with model_server("a") as server:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            async with gateway(server.url) as up:
                family = [up.process.pid, *children(up.process.pid)]
                limits = [resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in family]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert limits == [(hard, hard)] * 3


async def test_without_a_terminal_it_logs_lines() -> None:
    async with model_server("a") as server, gateway(server.url) as up:
        await up.said(rf"^\d\d:\d\d:\d\d {server.address} is ready$")
        await up.said(rf"^\d\d:\d\d:\d\d {server.address} ready queued=0 running=0 kv=0 % in-flight=0 picks/s=0$")
        assert "\x1b" not in "".join(up.lines)


async def test_a_server_that_is_not_there_yet_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    name = f"127.0.0.1:{port}"
    async with gateway(f"http://{name}") as up:
        await up.said(f"{name} is unreachable")
        async with model_server("late", port), aiohttp.ClientSession() as session:
            await up.ready(name)
            async with session.post(up.url) as answer:
                assert (await answer.json())["served_by"] == "late"


async def test_it_listens_on_ipv6() -> None:
    async with model_server("a") as server, gateway(server.url, "--host", "::1") as up:
        await up.ready()
        async with aiohttp.request("POST", up.url) as answer:
            assert answer.status == 200
