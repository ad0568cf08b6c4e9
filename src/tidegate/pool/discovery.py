"""Which endpoints there are, and where: a fixed list, or a watched file; names resolved to addresses.

Signals path: arguments or file → **endpoints** → Pool, scraper, Envoy's endpoint file
"""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tidegate.pool.endpoint import Endpoint
from tidegate.pool.endpoints_file import MAX_FILE_BYTES, parse_endpoints
from tidegate.pool.resolver import Resolver
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

    def __init__(
        self, source: EndpointSource, apply: Callable[[Sequence[Endpoint]], None], *, known_addresses: Mapping[str, str]
    ) -> None:
        """Call `apply` with the complete set of resolved endpoints, at first and whenever it changes.

        `known_addresses`: by host name, what a predecessor found.
        """
        self._source = source
        self._apply = apply
        self._resolver = Resolver(known_addresses)
        self._problems: dict[str, str] = {}
        self._reported: dict[str, str] = {}

    @property
    def problems(self) -> Sequence[str]:
        """What keeps endpoints out of the pool now, in words; empty when nothing does."""
        return list(self._reported.values())

    async def run(self) -> None:
        """Follow the source until cancelled; leaves no task behind."""
        applied: Sequence[Endpoint] | None = None
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._problems = {}
                if (wanted := await self._read()) is not None:
                    self._resolver.follow({endpoint.host for endpoint in wanted}, tasks)
                    await self._resolver.settle(LOOK_UP_PATIENCE_S)
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

    def _located(self, wanted: Sequence[Endpoint]) -> list[Endpoint]:
        """Return the endpoints that have an address, with it; of several with the same one, the first."""
        located: dict[str, Endpoint] = {}
        for endpoint in wanted:
            if (ip := self._resolver.address(endpoint.host)) is None:
                problem = self._resolver.problem(endpoint.host)
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
