"""Which endpoints there are, and where: a fixed list, or a watched file; names resolved to addresses.

Signals path: arguments or file → **endpoints** → Pool, scraper, Envoy's endpoint file
"""

import asyncio
import dataclasses
import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from tidegate.pool.endpoint import Endpoint
from tidegate.pool.endpoints_file import MAX_FILE_BYTES, parse_endpoints
from tidegate.protocol.errors import ConfigError

log = logging.getLogger(__name__)

POLL_S = 0.5
LOOK_UP_PATIENCE_S = 0.5
"""How long the endpoints that have an address wait for the look-ups of the others."""


class EndpointSource(Protocol):
    """Says which endpoints are wanted."""

    def read(self) -> Sequence[Endpoint]:
        """Return them, without addresses; ConfigError when they cannot be had now. Called every POLL_S seconds."""


class StaticEndpoints:
    """The endpoints of the command line."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints

    def read(self) -> Sequence[Endpoint]:
        """See `EndpointSource.read`."""
        return self._endpoints


class EndpointsFile:
    """The endpoints of a file, read again when it changes or another is renamed (or linked) into its place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, ...] | None = None
        self._endpoints: Sequence[Endpoint] = ()
        self._error: ConfigError | None = None

    def read(self) -> Sequence[Endpoint]:
        """See `EndpointSource.read`."""
        try:
            stat = self._path.stat()
            version = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if version != self._version:
                with self._path.open("rb") as file:
                    content = file.read(MAX_FILE_BYTES + 1)
                self._version, self._error = version, None
                self._endpoints = parse_endpoints(content, where=str(self._path))
        except OSError as error:
            raise ConfigError(
                f"cannot be read: {error.strerror}", fix="Give the path of an endpoint file.", where=str(self._path)
            ) from error
        except ConfigError as error:
            self._error = error
        if self._error is not None:
            raise self._error.with_traceback(None)  # raised at every poll, its traceback would grow
        return self._endpoints


class Discovery:
    """Keeps the pool's members up to date."""

    def __init__(self, source: EndpointSource, apply: Callable[[Sequence[Endpoint]], None]) -> None:
        """Call `apply` with the complete set of resolved endpoints, at first and whenever it changes."""
        self._source = source
        self._apply = apply
        self._addresses: dict[str, str] = {}
        self._failed_look_ups: dict[str, str] = {}
        self._problems: dict[str, str] = {}
        self._reported: dict[str, str] = {}

    @property
    def problems(self) -> Sequence[str]:
        """What keeps endpoints out of the pool now, in words; empty when nothing does."""
        return list(self._reported.values())

    async def run(self) -> None:
        """Follow the source until cancelled; leaves no task behind."""
        applied: Sequence[Endpoint] | None = None
        look_ups: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._problems = {}
                if (wanted := await self._read()) is not None:
                    for host in self._unresolved(wanted) - look_ups.keys():
                        look_ups[host] = tasks.create_task(self._look_up(host), name=f"look up {host}")
                    if look_ups:
                        await asyncio.wait(look_ups.values(), timeout=LOOK_UP_PATIENCE_S)
                    look_ups = {host: task for host, task in look_ups.items() if not task.done()}
                    located = self._located(wanted)
                    if located != applied:
                        applied = located
                        self._apply(located)
                self._report()
                await asyncio.sleep(POLL_S)

    async def _read(self) -> Sequence[Endpoint] | None:
        try:
            # In a thread: parsing a thousand endpoints takes 0.3 s, and picks must go on meanwhile.
            return await asyncio.to_thread(self._source.read)
        except ConfigError as error:
            self._complain("endpoints", f"{error} The endpoints stay as they were.")
            return None

    def _unresolved(self, wanted: Sequence[Endpoint]) -> set[str]:
        """Return the hosts without an address, and forget those that nobody wants any more."""
        hosts = {endpoint.host for endpoint in wanted}
        self._addresses = {host: ip for host, ip in self._addresses.items() if host in hosts}
        self._failed_look_ups = {host: why for host, why in self._failed_look_ups.items() if host in hosts}
        return hosts - self._addresses.keys()

    async def _look_up(self, host: str) -> None:
        # No timeout but the resolver's own: a few threads look up all names, and giving one up would not free its
        # thread, so that two names of a silent name server would soon keep all others from being found.
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA cannot encode
            self._failed_look_ups[host] = f"no address found ({error})"
            return
        # IPv4 first: servers that listen on 0.0.0.0 are the rule, and localhost often names both.
        by_family = sorted(found, key=lambda info: info[0] != socket.AF_INET)
        self._addresses[host] = str(by_family[0][4][0])
        self._failed_look_ups.pop(host, None)

    def _located(self, wanted: Sequence[Endpoint]) -> list[Endpoint]:
        """Return the endpoints that have an address, with it; of several with the same one, the first."""
        located: dict[str, Endpoint] = {}
        for endpoint in wanted:
            if (ip := self._addresses.get(endpoint.host)) is None:
                problem = self._failed_look_ups.get(endpoint.host, "no address found yet")
                self._complain(endpoint.host, f"{endpoint.host}: {problem}. Left out until it has one.")
                continue
            address = f"[{ip}]:{endpoint.port}" if ":" in ip else f"{ip}:{endpoint.port}"
            twin = located.setdefault(address, dataclasses.replace(endpoint, address=address))
            if twin.name != endpoint.name:
                self._complain(endpoint.name, f"{endpoint.name}: the same server as {twin.name}. Left out.")
        return list(located.values())

    def _complain(self, subject: str, problem: str) -> None:
        self._problems[subject] = problem

    def _report(self) -> None:
        """Log what is newly wrong: once, not at every poll."""
        for subject, problem in self._problems.items():
            if self._reported.get(subject) != problem:
                log.warning("%s", problem)
        self._reported = self._problems
