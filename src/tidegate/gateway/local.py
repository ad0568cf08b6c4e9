"""A gateway on this machine: an Envoy and its picker, in one directory, kept running.

What moves bytes and what decides are two processes: either may die, and the other goes on.
"""

import asyncio
import contextlib
import fcntl
import ipaddress
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path

import aiohttp
import msgspec

from tidegate.gateway.envoy.bootstrap import render_bootstrap
from tidegate.gateway.envoy.endpoints import CLUSTER, write_endpoints
from tidegate.gateway.envoy.files import write_json, write_resources
from tidegate.gateway.envoy.listener import render_listener
from tidegate.gateway.log_relay import LogRelay
from tidegate.gateway.process import KeptRunning, Program
from tidegate.gateway.report import PoolReport
from tidegate.protocol.errors import ConfigError

PICKER_SILENCE_S = 2.0
ENVOY_SILENCE_S = 10.0
"""Longer than the picker's: ending Envoy cuts every stream."""
LISTEN_PATIENCE_S = 15.0
"""When to say that Envoy does not listen; it takes less than a second."""
ENDPOINTS_PATIENCE_S = 5.0
"""From when Envoy listens. The picker needs about half a second until it has written them."""
POLL_S = 0.05
LOG_TAIL_BYTES = 2**16
MAX_DIRECTORY_LENGTH = 80
"""A unix socket's path has at most 107 bytes."""

_COMPLAINT = re.compile(r"^\[[-0-9: .]+\]\[\d+\]\[(?:warning|error|critical)\]\[\w+\] \[\S+\] (.+)$", re.MULTILINE)
"""A line of Envoy's log: time, thread, level, logger, place, and what it says."""


class LocalGateway:
    """Builds the files, runs both processes, says where it listens and how the pool is."""

    def __init__(
        self,
        directory: Path,
        *,
        envoy: Path,
        host: str,
        port: int,
        picker_argv: Sequence[str],
        steered: bool,
        usage: bool = False,
        say: Callable[[str], None],
    ) -> None:
        """Use `directory` (a short path: sockets live there) for everything.

        `picker_argv` starts a picker, to which the addresses here are added. `steered`: ask the picker; otherwise plain
        round robin, with the picker only watching. `usage`: let Envoy read token usage from the answers.
        """
        self._directory = directory
        self._envoy = envoy
        self._host = host
        self._port = port
        self._picker_argv = picker_argv
        self._steered = steered
        self._usage = usage
        self._say = say
        self._picker_socket = directory / "picker.sock"
        self._picker_admin = directory / "picker-admin.sock"
        self._log_socket = directory / "log.sock"
        self._envoy_admin = directory / "envoy-admin.sock"
        self._envoy_log = directory / "envoy.log"
        self._endpoints = directory / "endpoints" / "endpoints.json"
        self._listeners = directory / "listeners" / "listeners.json"

    async def run(self) -> None:
        """Run both until cancelled; leaves no process behind."""
        self._make_directories()
        write_endpoints(self._endpoints, [])  # until the picker does; Envoy does not start without
        picker = KeptRunning(
            self._picker_program(), healthy=self._picker_answers, max_silence_s=PICKER_SILENCE_S, say=self._say
        )
        envoy = KeptRunning(
            self._envoy_program(), healthy=self._envoy_answers, max_silence_s=ENVOY_SILENCE_S, say=self._say
        )
        relay = LogRelay(listen_on=self._log_socket, picker=self._picker_socket)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(relay.run(), name="log relay")
            tasks.create_task(picker.run(), name="picker")
            tasks.create_task(envoy.run(), name="envoy")

    async def url(self) -> str:
        """Wait until Envoy listens and has endpoints to send to; returns where.

        There may be no endpoints, or only names without an address: after ENDPOINTS_PATIENCE_S they are not waited for.
        """
        url = await self._listens_on()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDPOINTS_PATIENCE_S):
                await self._envoy_has_endpoints()
        return url

    async def pool(self) -> PoolReport | None:
        """Return what the picker knows; None while it does not answer."""
        content = await _get(self._picker_admin, "/debug/pool")
        return msgspec.json.decode(content, type=PoolReport) if content else None

    async def endpoints_ready(self) -> None:
        """Wait until every endpoint has reported its load, and there is one."""
        while True:
            pool = await self.pool()
            if pool and pool.endpoints and all(endpoint.state == "ready" for endpoint in pool.endpoints):
                return
            await asyncio.sleep(POLL_S)

    async def _listens_on(self) -> str:
        """Wait until Envoy listens, and say so when that takes long: it runs on when it rejects the listener."""
        clock = asyncio.get_running_loop().time
        overdue_at = clock() + LISTEN_PATIENCE_S
        while True:
            content = await _get(self._envoy_admin, "/listeners?format=json")
            statuses = msgspec.json.decode(content).get("listener_statuses", []) if content else []
            if statuses:
                bound = statuses[0]["local_address"]["socket_address"]
                return f"http://{_authority(bound['address'], bound['port_value'])}"
            if clock() > overdue_at:
                overdue_at = inf
                self._say(f"envoy still does not listen. Its last words: {_envoy_complaint(self._envoy_log)}")
            await asyncio.sleep(POLL_S)

    async def _envoy_has_endpoints(self) -> None:
        while True:
            content = await _get(self._envoy_admin, "/clusters?format=json")
            clusters = msgspec.json.decode(content)["cluster_statuses"] if content else []
            if any(cluster["name"] == CLUSTER and cluster.get("host_statuses") for cluster in clusters):
                return
            await asyncio.sleep(POLL_S)

    def _make_directories(self) -> None:
        for directory in (self._directory, self._endpoints.parent, self._listeners.parent):
            directory.mkdir(mode=0o700, exist_ok=True)

    def _write_files(self) -> None:
        self._make_directories()
        self._endpoints.stat()  # Only the picker knows what is in it: where it is gone, wait until it is written anew.
        write_resources(
            self._listeners,
            [render_listener(host=self._host, port=self._port, steered=self._steered, usage=self._usage)],
        )
        bootstrap = render_bootstrap(
            admin_socket=self._envoy_admin,
            picker_socket=self._picker_socket,
            log_socket=self._log_socket,
            listeners=self._listeners,
            endpoints=self._endpoints,
            steered=self._steered,
            now=time.monotonic(),  # the picker's clock, too
        )
        write_json(self._directory / "bootstrap.json", bootstrap)

    def _picker_program(self) -> Program:
        addresses = (
            *("--grpc-address", f"unix:{self._picker_socket}"),
            *("--admin-address", f"unix:{self._picker_admin}"),
            *("--envoy-endpoints", str(self._endpoints)),
        )
        return Program(
            "picker",
            [*self._picker_argv, *addresses],
            self._directory / "picker.log",
            prepare=self._make_directories,
        )

    def _envoy_program(self) -> Program:
        # Hot restart would share memory with any other Envoy of this machine.
        arguments = (
            "--config-path",
            str(self._directory / "bootstrap.json"),
            "--disable-hot-restart",
            "--log-level",
            "warning",
        )
        return Program("envoy", [str(self._envoy), *arguments], self._envoy_log, prepare=self._write_files)

    async def _picker_answers(self) -> bool:
        # It writes its file when endpoints change, and when it starts: without the file it has to start again.
        return self._endpoints.exists() and await _get(self._picker_admin, "/healthz") is not None

    async def _envoy_answers(self) -> bool:
        return await _get(self._envoy_admin, "/server_info") is not None


@contextlib.contextmanager
def working_directory() -> Iterator[Path]:
    """Yield a new directory for sockets, Envoy's files and logs; it goes in the end.

    It is locked meanwhile: systemd-tmpfiles takes what is older than ten days from /tmp, but nothing that is locked.
    """
    directory = Path(tempfile.mkdtemp(prefix="tidegate-"))
    lock = os.open(directory, os.O_RDONLY)
    try:
        if len(str(directory)) > MAX_DIRECTORY_LENGTH:
            raise ConfigError(f"the path {directory} is too long for unix sockets", fix="Set TMPDIR=/tmp.")
        with contextlib.suppress(OSError):  # some file systems have no locks
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield directory
    finally:
        os.close(lock)
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def reserved_port(host: str, port: int, *, fix: str) -> Iterator[int]:
    """Yield `port` of the IP address `host`, or a free one for 0; ConfigError, with `fix`, when it cannot be had.

    Asked before Envoy binds it: Envoy would share a port silently with another Envoy, and wait forever for a name.

    Until the end of the block the port goes to nobody who takes any free one, also while Envoy or the picker is away.
    These get it, by SO_REUSEADDR: Linux lets a socket that has it, and does not listen, stand in the way of no other.
    """
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError as error:
        raise ConfigError(
            f"cannot listen on {host!r}: not an IP address", fix="Give one, such as 127.0.0.1, or 0.0.0.0 for all."
        ) from error
    with socket.socket(family, socket.SOCK_STREAM) as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            reservation.bind((host, port))
        except OSError as error:
            raise ConfigError(f"cannot listen on {_authority(host, port)}: {error.strerror}", fix=fix) from error
        yield int(reservation.getsockname()[1])


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _envoy_complaint(log: Path) -> str:
    """Return the last warning or error in Envoy's log; it may go on for pages with what it was given."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
            complaints = _COMPLAINT.findall(file.read().decode(errors="replace"))
    except OSError:
        complaints = []
    return complaints[-1] if complaints else "(none)"


async def _get(unix_socket: Path, path: str) -> bytes | None:
    """Return the body of a GET over a unix socket; None when there is no good answer within a second."""
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(unix_socket)), timeout=aiohttp.ClientTimeout(total=1)
            ) as session,
            session.get(f"http://local{path}") as response,
        ):
            return await response.read() if response.status == 200 else None
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None
