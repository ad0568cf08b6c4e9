"""Servers whose expositions are rendered beforehand: a process of its own, with as many ports as endpoints are wanted.

Bench: expositions → **bytes on loopback** → scraper. Answering costs a write, so that one core has enough for all.

It is run as `python -m tidegate.bench.scrape_servers COUNT`, and says its ports, in JSON, on its first line.
"""

import asyncio
import contextlib
import re
import resource
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from tidegate.bench.fleet import first_line
from tidegate.bench.scrape_expositions import Exposition, load_expositions
from tidegate.gateway.process import Program, running
from tidegate.protocol.errors import ConfigError
from tidegate.scrape.http import HttpConnection, HttpUrl

HOST = "127.0.0.1"
COUNT_PATH = "/answered"
TIMEOUT_S = 5.0
SPARE_FILES = 200
"""What a process opens besides the sockets of the endpoints."""
MAX_REQUEST_BYTES = 65_536

_PORTS = re.compile(rb"^(\[.*\])$")


@dataclass(frozen=True, slots=True)
class PrerenderedServers:
    """The running servers: all expositions are at every port, each at its own path."""

    ports: Sequence[int]

    def url(self, exposition: Exposition) -> HttpUrl:
        """Return where the first of the servers has it."""
        return HttpUrl(HOST, self.ports[0], path_of(exposition))

    async def answered(self) -> int:
        """Return how many GETs of expositions they have answered, all together."""
        connection = HttpConnection(HOST, self.ports[0], timeout_s=TIMEOUT_S)
        try:
            return int((await connection.get(COUNT_PATH)).body)
        finally:
            connection.close()


def path_of(exposition: Exposition) -> str:
    """Return the path at which the servers have an exposition."""
    return f"/{exposition.slug}/metrics"


@contextlib.asynccontextmanager
async def prerendered_servers(count: int, directory: Path) -> AsyncIterator[PrerenderedServers]:
    """Run `count` of them; ConfigError when so many sockets may not be opened."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 2 * count + SPARE_FILES > limit:  # a port and a connection each, in one process
        most = max(0, limit - SPARE_FILES) // 2
        fix = f"Use {most} at most, or raise the limit (ulimit -n)."
        raise ConfigError(f"a process may open {limit} files here, too few for {count}", key="--endpoints", fix=fix)
    argv = [sys.executable, "-P", "-m", "tidegate.bench.scrape_servers", str(count)]
    program = Program("the servers", argv, directory / "servers.log")
    async with running(program, stdout=PIPE) as process:
        ports = msgspec.json.decode((await first_line(program, process, _PORTS))[1], type=list[int])
        yield PrerenderedServers(ports)


class _Answers:
    """What to say at each path, and how often an exposition has been said."""

    def __init__(self, expositions: Mapping[str, bytes]) -> None:
        self._rendered = {path: _render(b"200 OK", body) for path, body in expositions.items()}
        self._answered = 0

    def to(self, path: str) -> bytes:
        if path == COUNT_PATH:
            return _render(b"200 OK", b"%d" % self._answered)
        if path not in self._rendered:
            return _render(b"404 Not Found", b"")
        self._answered += 1
        return self._rendered[path]


class _Server(asyncio.Protocol):
    """One connection: takes GETs, one at a time."""

    def __init__(self, answers: _Answers) -> None:
        self._answers = answers
        self._transport: asyncio.Transport | None = None
        self._request = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._request += data
        if self._transport is None:
            return
        if self._request.endswith(b"\r\n\r\n"):
            _, path, _ = self._request.split(b" ", 2)
            self._request = b""
            self._transport.write(self._answers.to(path.decode("latin-1")))
        elif len(self._request) > MAX_REQUEST_BYTES:
            self._transport.abort()


def _render(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


async def _serve(count: int) -> None:
    answers = _Answers({path_of(exposition): exposition.body for exposition in load_expositions()})
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(lambda: _Server(answers), HOST, 0) for _ in range(count)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    print(msgspec.json.encode(ports).decode(), flush=True)
    await loop.create_future()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
