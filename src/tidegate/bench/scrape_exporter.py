"""What `tidegate exporter` adds to the time of a GET.

Bench: prerendered server → **directly and through the exporter, in turn** → AddedTime → report.
"""

import asyncio
import re
import time
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tidegate.bench.fleet import first_line
from tidegate.bench.scrape_costs import Spread, spread
from tidegate.bench.scrape_expositions import Exposition
from tidegate.bench.scrape_servers import HOST, TIMEOUT_S, PrerenderedServers
from tidegate.gateway.process import Program, own_command, running
from tidegate.protocol.errors import TidegateError
from tidegate.publish.exporter.fetches import KEPT_S
from tidegate.scrape.http import HttpConnection

PAUSE_S = 1.1 * KEPT_S
"""Before each GET: the exporter would otherwise answer with what it fetched for the one before."""

_LISTENS = re.compile(rb"http://\S+:(\d+)/metrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedTime:
    """One exposition, elapsed times of GETs over kept connections; seconds."""

    exposition: str
    body_bytes: int
    direct_s: Spread
    through_exporter_s: Spread
    added_s: Spread
    """Through the exporter less directly, of each pair."""
    gets: int
    """Pairs of GETs."""
    fetched: int
    """GETs that the server answered: twice `gets`, or the exporter has not asked it each time."""


async def measure_exporter(
    exposition: Exposition, servers: PrerenderedServers, *, pairs: int, directory: Path
) -> AddedTime:
    """GET one exposition so often, directly and through an exporter that is started for it."""
    url = servers.url(exposition)
    argv = own_command("exporter", "--scrape", str(url), "--port", "0")
    program = Program("the exporter", argv, directory / "exporter.log")
    async with running(program, stdout=PIPE) as process:
        port = int((await first_line(program, process, _LISTENS))[1])
        direct = HttpConnection(url.host, url.port, timeout_s=TIMEOUT_S)
        through = HttpConnection(HOST, port, timeout_s=TIMEOUT_S)
        try:
            await _get_s(direct, url.path)  # connects
            await _get_s(through, "/metrics")
            answered = await servers.answered()
            times = [(await _get_s(direct, url.path), await _get_s(through, "/metrics")) for _ in range(pairs)]
            fetched = await servers.answered() - answered
        finally:
            direct.close()
            through.close()
    return _added(exposition, times, fetched)


def _added(exposition: Exposition, times: Sequence[tuple[float, float]], fetched: int) -> AddedTime:
    return AddedTime(
        exposition=exposition.title,
        body_bytes=len(exposition.body),
        direct_s=spread([direct_s for direct_s, _ in times]),
        through_exporter_s=spread([through_s for _, through_s in times]),
        added_s=spread([through_s - direct_s for direct_s, through_s in times]),
        gets=len(times),
        fetched=fetched,
    )


async def _get_s(connection: HttpConnection, path: str) -> float:
    """Return how long a GET takes, after a pause; seconds."""
    await asyncio.sleep(PAUSE_S)
    started = time.perf_counter()
    answer = await connection.get(path)
    elapsed = time.perf_counter() - started
    if answer.status != 200:
        raise TidegateError(f"a GET of {path} was answered by status {answer.status}")
    return elapsed
