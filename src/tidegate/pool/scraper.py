"""Asks every endpoint how busy it is, over and over.

Signals path: endpoints → **one task each: GET, scan** → Pool.report or Pool.miss
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence

from tidegate.pool.endpoint import Endpoint
from tidegate.pool.table import Pool
from tidegate.protocol.engines import engine_named
from tidegate.protocol.errors import ScrapeError
from tidegate.scrape.http import HttpUrl
from tidegate.scrape.probe import ExpositionSource, Scrape, metrics_urls
from tidegate.scrape.turns import Turns

log = logging.getLogger(__name__)

MAX_PAUSE_S = 2.0
"""Between scrapes of a server that is there, but whose metrics are not."""
JITTER = 0.1
"""Share of the interval by which pauses differ, so that a thousand endpoints are not asked in the same millisecond."""


class Scraper:
    """Scrapes the current endpoints; a slow one delays nobody, and is never asked twice at a time.

    However many there are, the event loop, which also answers gateways, gets to that after each GET and each scan.
    """

    def __init__(
        self, pool: Pool, *, interval_s: float, timeout_s: float, clock: Callable[[], float], rng: random.Random
    ) -> None:
        self._pool = pool
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._rng = rng
        self._endpoints: Sequence[Endpoint] = ()
        self._changed = asyncio.Event()
        self._turns = Turns()

    def set_endpoints(self, endpoints: Sequence[Endpoint]) -> None:
        """Scrape these from now on."""
        self._endpoints = endpoints
        self._changed.set()

    async def run(self) -> None:
        """Scrape until cancelled; leaves no task behind."""
        watches: dict[tuple[Endpoint, tuple[HttpUrl, ...]], asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                wanted = set(exposition_urls(self._endpoints).items())
                for gone in watches.keys() - wanted:
                    watches.pop(gone).cancel()
                for endpoint, urls in wanted - watches.keys():
                    watch = self._watch(endpoint, urls)
                    watches[endpoint, urls] = tasks.create_task(watch, name=f"scrape {endpoint.name}")
                await self._changed.wait()
                self._changed.clear()

    async def _watch(self, endpoint: Endpoint, urls: Sequence[HttpUrl]) -> None:
        source = ExpositionSource(
            urls,
            engine=engine_named(endpoint.engine) if endpoint.engine else None,
            timeout_s=self._timeout_s,
            clock=self._clock,
            serving=serving_url(endpoint),
            turns=self._turns,
        )
        failing = woken = False
        pause_s = self._interval_s
        try:
            while True:
                await self._turns.to_begin()
                try:
                    self._report(endpoint, await source.read())
                except ScrapeError as error:  # servers restart: ordinary, so it must not end the group
                    self._pool.miss(
                        endpoint.name, error=str(error), reachable=error.server_reachable, now=self._clock()
                    )
                    if not failing:
                        log.warning("%s: no metrics: %s", endpoint.name, error)
                    failing = True
                    # Nothing is gained by asking a server five times a second for metrics that it does not have.
                    pause_s = min(2 * pause_s, MAX_PAUSE_S) if error.server_reachable else self._interval_s
                else:
                    if failing:
                        log.info("%s: metrics are back", endpoint.name)
                    failing = False
                    pause_s = self._interval_s
                woken = await self._pause(source, pause_s, alert=not woken)
        finally:
            source.close()

    def _report(self, endpoint: Endpoint, scrape: Scrape) -> None:
        # In a method of its own: a thousand tasks that wait for their next turn must not hold a thousand expositions.
        self._pool.report(endpoint.name, scrape.signals, started_at=scrape.started_at)

    async def _pause(self, source: ExpositionSource, about_s: float, *, alert: bool) -> bool:
        """Wait `about_s` for the next turn; True when it comes early, on `alert`: the server closed the connection.

        A killed server is noticed at once that way; one that closes every connection is still not asked in a frenzy.
        """
        pause = about_s * self._rng.uniform(1 - JITTER, 1 + JITTER)
        if not alert:
            await asyncio.sleep(pause)
            return False
        try:
            async with asyncio.timeout(pause):
                await source.wait_closed()
        except TimeoutError:
            return False
        return True


def exposition_urls(endpoints: Sequence[Endpoint]) -> dict[Endpoint, tuple[HttpUrl, ...]]:
    """Return where the exposition of each may be: exactly one place when the operator named it, else those to be tried.

    Where several endpoints of one host have no named place, each is looked for at its own port alone: whose figures
    another port of that host has, nobody could tell.
    """
    sought_at = Counter(serving_url(endpoint).host for endpoint in endpoints if not _is_named(endpoint))
    return {
        endpoint: _exposition_urls(endpoint, alone=sought_at[serving_url(endpoint).host] == 1) for endpoint in endpoints
    }


def _exposition_urls(endpoint: Endpoint, *, alone: bool) -> tuple[HttpUrl, ...]:
    serving = serving_url(endpoint)
    if _is_named(endpoint):
        host = endpoint.metrics_host or serving.host
        return (HttpUrl(host, endpoint.metrics_port or endpoint.port, endpoint.metrics_path or "/metrics"),)
    return tuple(url for url in metrics_urls(serving) if alone or url.authority == serving.authority)


def _is_named(endpoint: Endpoint) -> bool:
    return endpoint.metrics_port is not None or endpoint.metrics_path is not None


def serving_url(endpoint: Endpoint) -> HttpUrl:
    """Return where the server takes requests."""
    return HttpUrl(endpoint.address.rpartition(":")[0].strip("[]"), endpoint.port, "/")
