"""What a server says, fetched when somebody asks, and once for all who ask at the same time.

Publishing path: server → ExpositionSource → **Fetched** → rendering.render_load → exposition.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tidegate.protocol.errors import ScrapeError
from tidegate.scrape.probe import ExpositionSource, Scrape

log = logging.getLogger(__name__)

KEPT_S = 0.1
"""How long an answer serves whoever asks next."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """How the last fetch went."""

    scrape: Scrape | None
    error: ScrapeError | None
    """Why there is no `scrape`."""
    took_s: float
    ended_at: float
    """Seconds, monotonic."""


class Fetches:
    """Those of one server: `run` does them, `latest` asks for one."""

    def __init__(self, source: ExpositionSource, clock: Callable[[], float], *, forget: Callable[[], None]) -> None:
        """`forget`: called when the server is gone; what it said before is not true of the one that comes next."""
        self._source = source
        self._clock = clock
        self._forget = forget
        self._wanted = asyncio.Event()
        self._done = asyncio.Event()
        self._last: Fetched | None = None
        self.counts: Counter[str] = Counter()
        """How many there were, by result: ok, or the word for the failure."""

    @property
    def last(self) -> Fetched | None:
        """The last fetch, whenever it was; None before the first."""
        return self._last

    async def run(self) -> None:
        """Fetch whenever it is wanted, until cancelled."""
        try:
            while True:
                await self._wanted.wait()
                self._note(await self._fetch())
                self._wanted.clear()
                done, self._done = self._done, asyncio.Event()
                done.set()
        finally:
            self._source.close()

    async def latest(self) -> Fetched:
        """Return a fetch that is at most KEPT_S old; waits for the one under way, or for a new one.

        Whoever asks may give up waiting; the fetch goes on for the others.
        """
        last = self._last
        if last is not None and not self._wanted.is_set() and self._clock() - last.ended_at < KEPT_S:
            return last
        done = self._done
        self._wanted.set()
        await done.wait()
        assert self._last is not None  # noqa: S101 - set before `done`
        return self._last

    async def _fetch(self) -> Fetched:
        started_at = self._clock()
        scrape = error = None
        try:
            scrape = await self._source.read()
        except ScrapeError as problem:
            error = problem
            if problem.unreachable:
                self._forget()
        ended_at = self._clock()
        return Fetched(scrape, error, ended_at - started_at, ended_at)

    def _note(self, fetched: Fetched) -> None:
        before, self._last = self._last, fetched
        self.counts[fetched.error.reason if fetched.error else "ok"] += 1
        if fetched.error is not None and (before is None or str(before.error) != str(fetched.error)):
            log.warning("no metrics: %s", fetched.error)
        if fetched.scrape is not None and (before is None or before.scrape is None):
            log.info("reading %s (engine %s)", self._source.url, fetched.scrape.engine.name)
