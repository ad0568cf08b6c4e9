"""`tidegate` as users start it: a process, what it says, how it ends."""

import asyncio
import contextlib
import os
import random
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from tidegate.gateway.local import reserved_port
from tidegate.protocol.errors import ConfigError

DEADLINE_S = 30.0
UNGIVEN_PORTS = (20_000, 32_768)
"""Linux gives clients those from 32,768 on."""

T = TypeVar("T")


async def until(probe: Callable[[], Awaitable[T]], *, within_s: float = DEADLINE_S) -> T:
    """Return the first true answer of `probe`; TimeoutError when there is none in time."""
    async with asyncio.timeout(within_s):
        while not (answer := await probe()):
            await asyncio.sleep(0.05)
        return answer


def free_port() -> int:
    """Return a port of loopback that is free now, for programs that cannot find one themselves.

    Below those that the system gives to clients: in the second until the program binds it, one of thousands of
    connections would take it.
    """
    while True:
        with (
            contextlib.suppress(ConfigError),
            reserved_port("127.0.0.1", random.SystemRandom().randrange(*UNGIVEN_PORTS), fix="") as port,
        ):
            return port


async def listens(port: int) -> bool:
    """Return whether somebody takes connections there, on loopback."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


class Tidegate:
    """A running command."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def said(self, pattern: str, *, within_s: float = DEADLINE_S) -> re.Match[str]:
        """Wait for a line that matches; returns the match."""
        for line in self.lines:
            if found := re.search(pattern, line):
                return found
        assert self.process.stdout is not None
        async with asyncio.timeout(within_s):
            while raw := await self.process.stdout.readline():
                self.lines.append(raw.decode().rstrip())
                if found := re.search(pattern, self.lines[-1]):
                    return found
        raise AssertionError(f"ended without saying {pattern!r}; it said:\n" + "\n".join(self.lines))

    async def end(self, *, within_s: float = DEADLINE_S) -> int:
        """Wait for the exit; returns its status."""
        async with asyncio.timeout(within_s):
            assert self.process.stdout is not None
            rest = await self.process.stdout.read()
            self.lines.extend(rest.decode().splitlines())
            return await self.process.wait()


class Gateway(Tidegate):
    """A running `tidegate up`."""

    url = ""
    admin = ""

    async def pool(self) -> dict[str, Any]:
        """Return `/debug/pool`, endpoints by name; empty while the picker does not answer."""
        try:
            async with aiohttp.request("GET", f"{self.admin}/debug/pool", timeout=aiohttp.ClientTimeout(1)) as answer:
                report = await answer.json()
        except (aiohttp.ClientError, TimeoutError):
            return {}
        return report | {"endpoints": {endpoint["name"]: endpoint for endpoint in report["endpoints"]}}

    async def states(self) -> dict[str, str]:
        """Return the state of each endpoint."""
        return {name: endpoint["state"] for name, endpoint in (await self.pool()).get("endpoints", {}).items()}

    async def ready(self, *names: str) -> None:
        """Wait until these endpoints are ready, or all (at least one) when none is named."""

        async def are_ready() -> bool:
            states = await self.states()
            return bool(states) and all(states.get(name) == "ready" for name in names or states)

        await until(are_ready)

    async def endpoint(self, name: str) -> dict[str, Any]:
        """Return one endpoint of `/debug/pool`."""
        pool = await until(self.pool)
        return pool["endpoints"][name]

    async def shows(self, name: str, **figures: Any) -> None:
        """Wait until `/debug/pool` says this of an endpoint."""

        async def is_shown() -> bool:
            endpoint = (await self.pool()).get("endpoints", {}).get(name, {})
            return figures.items() <= endpoint.items()

        await until(is_shown)

    async def drained(self) -> dict[str, Any]:
        """Wait until no request is in flight anywhere; returns `/debug/pool`."""

        async def is_drained() -> dict[str, Any]:
            pool = await self.pool()
            return {} if any(endpoint["in_flight"] for endpoint in pool.get("endpoints", {}).values()) else pool

        return await until(is_drained)

    def child(self, name: str) -> int:
        """Return the pid of the child whose command line contains `name`."""
        [pid] = [pid for pid, command in children(self.process.pid).items() if name in command]
        return pid


@contextlib.asynccontextmanager
async def tidegate(*arguments: str) -> AsyncIterator[Tidegate]:
    """Run a command until the end of the block, then end it by SIGTERM."""
    async with _running(*arguments) as process:
        yield Tidegate(process)


@contextlib.asynccontextmanager
async def sim(*options: str, port: int = 0) -> AsyncIterator[tuple[Tidegate, str]]:
    """Run a simulated model server; yields it with its URL once it listens."""
    async with tidegate("sim", "--port", str(port), *options) as process:
        yield process, (await process.said(r"on (http://127\.0\.0\.1:\d+)"))[1]


@contextlib.asynccontextmanager
async def gateway(*arguments: str) -> AsyncIterator[Gateway]:
    """Run `tidegate up` on free ports; yields once it listens, and checks that it leaves no process behind."""
    async with _running("up", "--port", "0", "--admin-port", "0", *arguments) as process:
        running = Gateway(process)
        running.url = (await running.said(r"listens on (http://[^,\s]+)"))[1]
        running.admin = (await running.said(r"metrics on (http://\S+)/metrics"))[1]
        family = [process.pid, *children(process.pid)]
        yield running
        family += children(process.pid)
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            assert await running.end() == 0
    assert not alive(family)


@contextlib.asynccontextmanager
async def _running(*arguments: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "tidegate", *arguments),
        stdout=PIPE,
        stderr=STDOUT,
        env=environment(),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.communicate(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()


def environment() -> dict[str, str]:
    """Return what a command under test finds around it: lines that come at once, and a wide screen."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}


def children(pid: int) -> dict[int, str]:
    """Return the living children of a process, and their children, with their command lines."""
    found: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
                found |= children(int(entry.name))
    return found


def alive(pids: Iterable[int]) -> list[int]:
    """Return the processes that still run; one that ended and that nobody has waited for does not."""
    return [pid for pid in pids if _state(pid) not in "ZX"]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"
