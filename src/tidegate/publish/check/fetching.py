"""Finds the exposition of a server to check, and GETs it with the time that takes.

Probes other places than the signals path does, in another order: reading trtllm-serve's `/metrics` takes its statistics
from whoever else reads them, so its other path comes first.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote

from tidegate.protocol.conformance.evidence import Answer
from tidegate.protocol.conformance.reach import is_statistics
from tidegate.protocol.conformance.strict import read_strictly
from tidegate.protocol.conformance.transport import FilterProbe
from tidegate.protocol.engines import EngineMapping, detect_engine
from tidegate.protocol.errors import ScrapeError, ScrapeFailure
from tidegate.protocol.exposition import mentions
from tidegate.scrape.answer import HttpAnswer
from tidegate.scrape.http import HttpConnection, HttpUrl
from tidegate.scrape.probe import PATH_BESIDE_JSON, TELLS_NOTHING, places_before_json

MAX_BODY_BYTES = 16 * 2**20
"""Largest exposition that is looked at; larger ones than are scraped, so that a rule can tell of them."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an exposition was found."""

    url: HttpUrl
    engine: EngineMapping | None
    """None: of no engine that is known."""


class StatisticsFoundError(ScrapeError):
    """There are only iteration statistics in JSON."""


class Fetcher:
    """The connections to one server. The owner uses `open_fetcher`, which closes them."""

    def __init__(self, timeout_s: float, quiet: asyncio.Lock) -> None:
        self._timeout_s = timeout_s
        self.quiet = quiet
        """Held while an exposition is read, and by a GET whose time must not be that of reading another one."""
        self._connections: dict[str, HttpConnection] = {}

    async def find(self, given: HttpUrl, engine: EngineMapping | None, *, alone: bool) -> Place:
        """Return where the exposition is: at the URL given, or near it if that is the server's base.

        `alone`: whether what is found at another port of the host can be this server's. With several servers there,
        nobody could tell whose it is.

        Raises:
            ScrapeError: nowhere; StatisticsFoundError where there is something to read, but not for `check`.
        """
        failures: list[ScrapeError] = []
        foreign: HttpUrl | None = None
        statistics: HttpUrl | None = None
        places = [url for url in places_before_json(given) if alone or url.authority == given.authority]
        for url in places:
            if statistics is not None and url.authority != statistics.authority:
                continue  # The server is found: what answers elsewhere is another.
            try:
                body = (await self._get_ok(url)).body
                found = self._recognise(body, engine)
            except ScrapeError as error:
                failures.append(error if error.url else ScrapeError(error.problem, reason=error.reason, url=str(url)))
                if url.authority == given.authority and error.reason in TELLS_NOTHING:
                    break
                continue
            if found is not None:
                return Place(url, found)
            if is_statistics(body):
                statistics = url
                beside = HttpUrl(url.host, url.port, PATH_BESIDE_JSON)
                if beside not in places:
                    places.append(beside)  # and so this loop comes to it
            else:
                foreign = foreign or url
        if statistics is not None:
            raise StatisticsFoundError("iteration statistics in JSON", url=str(statistics))
        if foreign is not None:
            return Place(foreign, None)
        at_server = [error.reason for error in failures if error.url.startswith(f"http://{given.authority}/")]
        raise ScrapeError("; ".join(map(str, failures)), reason=(at_server or [failures[-1].reason])[-1])

    async def get(self, url: HttpUrl) -> Answer:
        """Return the exposition, with the time it took.

        Raises:
            ScrapeError: no answer, or not of status 200.
        """
        clock = asyncio.get_running_loop().time
        started_at = clock()
        answer = await self._get_ok(url)
        return Answer(body=answer.body, content_type=answer.content_type, took_s=clock() - started_at)

    async def get_filtered(self, url: HttpUrl, family: str) -> FilterProbe:
        """Return what a filter by name gives.

        Raises:
            ScrapeError: no answer.
        """
        joint = "&" if "?" in url.path else "?"
        answer = await self._connection(url).get(f"{url.path}{joint}name%5B%5D={quote(family, safe=':')}")
        return FilterProbe(family=family, status=answer.status, body=answer.body)

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()

    async def _get_ok(self, url: HttpUrl) -> HttpAnswer:
        answer = await self._connection(url).get(url.path)
        if answer.status != 200:
            problem = f"status {answer.status} instead of 200"
            raise ScrapeError(problem, reason=ScrapeFailure.BAD_STATUS, url=str(url))
        return answer

    def _recognise(self, body: bytes, engine: EngineMapping | None) -> EngineMapping | None:
        """Return whose exposition a body is; None: nobody's who is known, or iteration statistics."""
        if is_statistics(body):
            return None
        if engine is not None and mentions(body, engine.prefix):
            return engine
        detected = detect_engine(body) if engine is None else None
        if detected is None and not read_strictly(body).is_exposition:
            raise ScrapeError("holds no line of an exposition" if body.strip() else "is empty")
        return detected

    def _connection(self, url: HttpUrl) -> HttpConnection:
        connection = self._connections.get(url.authority)
        if connection is None:
            connection = HttpConnection(url.host, url.port, timeout_s=self._timeout_s, max_body_bytes=MAX_BODY_BYTES)
            self._connections[url.authority] = connection
        return connection


@contextmanager
def open_fetcher(timeout_s: float, quiet: asyncio.Lock) -> Iterator[Fetcher]:
    """Yield a fetcher whose every GET takes at most `timeout_s`, and close it at the end.

    `quiet`: one for all servers that are checked in this event loop.
    """
    fetcher = Fetcher(timeout_s, quiet)
    try:
        yield fetcher
    finally:
        fetcher.close()
