"""Many endpoints scraped by the scraper of the picker, and how late its event loop comes meanwhile.

Bench: prerendered servers → **Scraper → Pool**, beside a probe of the loop → FleetRun → report. A pick waits for the
loop as the probe does.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np

from tidegate.bench.scrape_expositions import Exposition
from tidegate.bench.scrape_servers import HOST, PrerenderedServers, path_of
from tidegate.pool.endpoint import Endpoint
from tidegate.pool.scraper import Scraper
from tidegate.pool.table import Pool
from tidegate.protocol.errors import TidegateError
from tidegate.protocol.signals import LoadSignals

TIMEOUT_S = 1.0
"""Of a scrape, as in the picker."""
STALE_AFTER_S = 1.0
FIRST_ROUND_TIMEOUT_S = 60.0
WARM_UP_S = 2.0
"""After every endpoint has been asked once: until their turns have spread over the interval."""
PROBE_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopLoad:
    """What an event loop, and the process around it, had to do for a while."""

    seconds: float
    cores: float
    """CPU time of the process / elapsed time."""
    delay_p50_s: float
    """How late the loop comes to what is due at a random moment; seconds."""
    delay_p99_s: float
    delay_max_s: float
    own_p99_s: float
    """The same of the part in which the loop was at work itself; the rest it waited for a core, or for the timer."""
    own_max_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRun:
    """One exposition at all endpoints."""

    exposition: str
    body_bytes: int
    loop: LoopLoad
    scrapes_per_s: float
    """Reports that reached the pool."""
    missed: int
    """Scrapes that gave none, while `loop` was measured."""
    reported_in_all: int
    """Reports from the first to the last scrape."""
    missed_in_all: int
    answered_in_all: int
    """The same as the servers count it; more than both by what was under way at the end."""


class _CountingPool(Pool):
    """The pool, and how often the scraper has told it something."""

    def __init__(self, members: Sequence[Endpoint]) -> None:
        super().__init__(stale_after_s=STALE_AFTER_S)
        self.set_endpoints(members)
        self.reported = 0
        self.missed = 0
        self._unheard_of = {member.name for member in members}
        self.all_heard_of = asyncio.Event()

    def report(self, name: str, signals: LoadSignals, *, started_at: float) -> None:
        self.reported += 1
        self._hear_of(name)
        super().report(name, signals, started_at=started_at)

    def miss(self, name: str, *, error: str, reachable: bool | None, now: float) -> None:
        self.missed += 1
        self._hear_of(name)
        super().miss(name, error=error, reachable=reachable, now=now)

    def _hear_of(self, name: str) -> None:
        self._unheard_of.discard(name)
        if not self._unheard_of:
            self.all_heard_of.set()


async def scrape_fleet(
    exposition: Exposition, servers: PrerenderedServers, *, rate_hz: float, seconds: float
) -> FleetRun:
    """Scrape all servers, each over a connection of its own, about `rate_hz` times a second."""
    members = [_endpoint(port, path_of(exposition)) for port in servers.ports]
    pool = _CountingPool(members)
    scraper = Scraper(pool, interval_s=1 / rate_hz, timeout_s=TIMEOUT_S, clock=time.monotonic, rng=random.Random(1))  # noqa: S311
    scraper.set_endpoints(members)
    answered_before = await servers.answered()
    async with _running(scraper):
        await _first_round(pool)
        reported, missed = pool.reported, pool.missed
        loop = await measure_loop(seconds)
        reported, missed = pool.reported - reported, pool.missed - missed
    return FleetRun(
        exposition=exposition.title,
        body_bytes=len(exposition.body),
        loop=loop,
        scrapes_per_s=reported / loop.seconds,
        missed=missed,
        reported_in_all=pool.reported,
        missed_in_all=pool.missed,
        answered_in_all=await servers.answered() - answered_before,
    )


async def measure_loop(seconds: float) -> LoopLoad:
    """Probe the running loop for so long."""
    lates: list[tuple[float, float]] = []
    probe = asyncio.create_task(_probe(lates), name="probe")
    started, cpu_started = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    elapsed, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    probe.cancel()
    delays, own = delays_of([late for late, _ in lates]), delays_of([own for _, own in lates])
    p50, p99 = np.percentile(delays, (50, 99)).tolist()
    return LoopLoad(
        seconds=elapsed,
        cores=cpu_s / elapsed,
        delay_p50_s=p50,
        delay_p99_s=p99,
        delay_max_s=max(delays),
        own_p99_s=float(np.percentile(own, 99)),
        own_max_s=max(own),
    )


def delays_of(lates: Sequence[float]) -> list[float]:
    """Return the delays of probes due every PROBE_S, from the lateness of one that sleeps so long in between.

    While the loop is busy for 10 ms, one sleeper is late; but ten probes were due, and the last waited a moment only.
    """
    return [late - k * PROBE_S for late in lates or [0.0] for k in range(1 + int(max(0.0, late) / PROBE_S))]


async def _probe(lates: list[tuple[float, float]]) -> None:
    """Note how late each wake-up comes, and how much of that this thread was at work, until cancelled; seconds."""
    while True:
        due, cpu_before = time.perf_counter() + PROBE_S, time.thread_time()
        await asyncio.sleep(PROBE_S)
        late, cpu_s = max(0.0, time.perf_counter() - due), time.thread_time() - cpu_before
        lates.append((late, min(late, cpu_s)))


@contextlib.asynccontextmanager
async def _running(scraper: Scraper) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        scraping = tasks.create_task(scraper.run(), name="scraper")
        try:
            yield
        finally:
            scraping.cancel()


async def _first_round(pool: _CountingPool) -> None:
    """Wait until every endpoint has been asked, and then a while."""
    try:
        async with asyncio.timeout(FIRST_ROUND_TIMEOUT_S):
            await pool.all_heard_of.wait()
    except TimeoutError as error:
        problem = f"not all of the endpoints could be asked once within {FIRST_ROUND_TIMEOUT_S:.0f} s"
        raise TidegateError(f"{problem}. Use fewer --endpoints.") from error
    await asyncio.sleep(WARM_UP_S)


def _endpoint(port: int, metrics_path: str) -> Endpoint:
    address = f"{HOST}:{port}"
    return Endpoint(name=address, host=HOST, port=port, address=address, metrics_path=metrics_path)
