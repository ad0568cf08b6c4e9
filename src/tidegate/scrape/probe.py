"""Finds where a server publishes its metrics and which engine it is, and reads its load from there.

Signals path: server → **GET, detect, parse** → Scrape → Pool.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tidegate.protocol.engines import ENGINES, EngineMapping, detect_engine
from tidegate.protocol.errors import ScrapeError, ScrapeFailure
from tidegate.protocol.load import parse_signals
from tidegate.protocol.signals import LoadSignals
from tidegate.scrape.answer import HttpAnswer
from tidegate.scrape.http import HttpConnection, HttpUrl
from tidegate.scrape.turns import Turns

TRITON_METRICS_PORT = 8002
FAILURES_BEFORE_PROBING = 3
"""Failures in a row after which a URL that once worked is doubted: a restarted server can be another one."""

STATISTICS_ENGINE = ENGINES["trtllm-serve"]
"""The only server whose load is found as a JSON array of iteration statistics, at its /metrics."""

PATH_BESIDE_JSON = "/prometheus/metrics"
"""Where that server has its exposition."""

TELLS_NOTHING = frozenset({ScrapeFailure.UNREACHABLE, ScrapeFailure.TIMEOUT, ScrapeFailure.EXHAUSTED})
"""Failures at the serving port after which the other URLs are not tried."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one scrape gave."""

    signals: LoadSignals
    started_at: float
    """When the GET that gave the signals was begun; seconds, of the same clock as `LoadSignals.observed_at`.

    Requests dispatched between the two times may be in the signals or not.
    """
    engine: EngineMapping
    exposition: bytes | None
    """What the server answered; None: iteration statistics in JSON."""
    content_type: str


def metrics_urls(serving: HttpUrl) -> tuple[HttpUrl, ...]:
    """Return where the exposition of a server may be, the likeliest place first.

    vLLM, SGLang, llama.cpp and TGI serve ``/metrics``, trtllm-serve ``/prometheus/metrics`` (its ``/metrics`` is JSON),
    Triton ``/metrics`` on port 8002.
    """
    candidates = [
        HttpUrl(serving.host, serving.port, "/metrics"),
        HttpUrl(serving.host, serving.port, PATH_BESIDE_JSON),
        HttpUrl(serving.host, TRITON_METRICS_PORT, "/metrics"),
    ]
    return tuple(dict.fromkeys(candidates))


def places_before_json(given: HttpUrl) -> list[HttpUrl]:
    """Return where to look for an exposition without first taking statistics in JSON from whoever else reads them.

    A URL with a path is the only place; one without stands for all places that engines have.
    """
    if given.path != "/":
        return [given]
    return sorted(metrics_urls(given), key=lambda url: url.path != PATH_BESIDE_JSON)


class ExpositionSource:
    """The load of one server, read from the first of some URLs that publishes it.

    Remembers the URL and the engine that worked; probes all URLs again when they have failed several times in a row.
    The owner calls `close` at the end.
    """

    def __init__(
        self,
        urls: Sequence[HttpUrl],
        *,
        engine: EngineMapping | None = None,
        timeout_s: float,
        clock: Callable[[], float],
        serving: HttpUrl | None = None,
        turns: Turns | None = None,
        parse_statistics: Callable[[bytes, float], LoadSignals] | None = None,
    ) -> None:
        """Store what to read; nothing is connected before the first `read`.

        Args:
            urls: where to look, in this order; at least one.
            engine: the kind of server; None detects it.
            timeout_s: limit on one `read`, the probing of all URLs included.
            clock: seconds, monotonic; gives `Scrape.started_at` and `LoadSignals.observed_at`.
            serving: where the server takes requests, for telling a dead server from a dead metrics port; None: where
                the first URL points.
            turns: shared by all sources of an event loop: one answer is parsed in each of its rounds; None: no other
                source keeps this loop busy.
            parse_statistics: reads iteration statistics in JSON, given the time; raises ScrapeError. None: JSON is no
                answer, since reading these takes them from everyone else who does.
        """
        self._urls = tuple(urls)
        self._given_engine = engine
        self._engine = engine
        self._settled = engine is not None
        self._timeout_s = timeout_s
        self._clock = clock
        self._turns = turns or Turns()
        self._parse_statistics = parse_statistics
        self._serving = (serving or urls[0]).authority
        self._url: HttpUrl | None = None
        self._connections: dict[str, HttpConnection] = {}
        self._failures = 0

    @property
    def url(self) -> HttpUrl | None:
        """Where the exposition is; None until found."""
        return self._url

    @property
    def engine(self) -> EngineMapping | None:
        """The kind of server, given or detected; None until detected."""
        return self._engine

    async def read(self) -> Scrape:
        """Scrape once.

        Raises:
            ScrapeError: no URL gave the metrics; names all that were tried and why each failed. Its `reason` is
                UNREACHABLE only if the serving port itself could not be reached.
        """
        if self._url is None:
            return await self._probe()
        try:
            scrape = await self._read(self._url)
        except ScrapeError as error:
            if error.reason is ScrapeFailure.EXHAUSTED:
                raise  # What we lack is no reason to doubt the URL.
            self._failures += 1
            if error.unreachable and self._url.authority != self._serving:
                # Whether a dead metrics port means a dead server, only the serving port can tell.
                self._forget()
                return await self._probe()
            if self._failures >= FAILURES_BEFORE_PROBING:
                self._forget()
            raise
        self._failures = 0
        return scrape

    async def wait_closed(self) -> None:
        """Return as soon as the connection of the last successful `read` is closed; see HttpConnection.wait_closed."""
        if self._url is None:
            await asyncio.get_running_loop().create_future()
        else:
            await self._connection(self._url).wait_closed()

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    async def _probe(self) -> Scrape:
        """Read the first URL that works, and remember it."""
        failures: dict[HttpUrl, ScrapeError] = {}
        try:
            async with asyncio.timeout(self._timeout_s):
                for url in self._urls:
                    try:
                        scrape = await self._read(url)
                    except ScrapeError as error:
                        failures[url] = error
                        if url.authority == self._serving and error.reason in TELLS_NOTHING:
                            break  # A server that is down or hangs has not said that its metrics are elsewhere.
                    else:
                        self._remember(url)
                        return scrape
        except TimeoutError:
            late = self._urls[len(failures)]
            problem = f"no whole answer within the {self._timeout_s:g} s for all of them"
            failures[late] = ScrapeError(problem, reason=ScrapeFailure.TIMEOUT, url=str(late))
        finally:
            if self._url is None:
                self._disconnect()
        raise self._summary(failures)

    async def _read(self, url: HttpUrl) -> Scrape:
        started_at = self._clock()
        answer = await self._connection(url).get(url.path)
        observed_at = self._clock()
        if answer.status != 200:
            problem = f"status {answer.status} instead of 200"
            raise ScrapeError(problem, reason=ScrapeFailure.BAD_STATUS, url=str(url))
        await self._turns.to_finish()
        try:
            return self._parse(answer, started_at, observed_at)
        except ScrapeError as error:
            raise ScrapeError(error.problem, reason=error.reason, url=str(url)) from error

    def _parse(self, answer: HttpAnswer, started_at: float, observed_at: float) -> Scrape:
        if "json" in answer.content_type:
            if self._parse_statistics is None or self._given_engine not in (None, STATISTICS_ENGINE):
                raise ScrapeError(f"no exposition but {answer.content_type[:80]!r}")
            signals = self._parse_statistics(answer.body, observed_at)
            self._engine = STATISTICS_ENGINE
            return Scrape(signals, started_at, STATISTICS_ENGINE, exposition=None, content_type=answer.content_type)
        engine = self._engine if self._settled else detect_engine(answer.body)
        if engine is None:
            raise ScrapeError("no metrics of any engine known")
        signals = parse_signals(answer.body, engine, observed_at=observed_at)
        if self._parse_statistics is not None and engine is STATISTICS_ENGINE and signals.kv_utilization is None:
            problem = (
                f"metrics of {engine.name}, but none of its load: no request was served, or it was started without "
            )
            raise ScrapeError(problem + engine.options)
        self._engine = engine
        # Triton lists the families of its TensorRT-LLM backend only once that has loaded: until an engine has shown a
        # KV cache, it may still turn out to be another.
        self._settled = self._settled or signals.kv_utilization is not None
        return Scrape(signals, started_at, engine, answer.body, answer.content_type)

    def _connection(self, url: HttpUrl) -> HttpConnection:
        connection = self._connections.get(url.authority)
        if connection is None:
            connection = HttpConnection(url.host, url.port, timeout_s=self._timeout_s)
            self._connections[url.authority] = connection
        return connection

    def _remember(self, url: HttpUrl) -> None:
        self._url = url
        self._failures = 0
        self._disconnect(spare=url.authority)

    def _forget(self) -> None:
        self._url = None
        self._engine = self._given_engine
        self._settled = self._given_engine is not None
        self._failures = 0
        self._disconnect()

    def _disconnect(self, *, spare: str = "") -> None:
        """Disconnect from all servers but one; what is still being looked up for them goes on."""
        for authority, connection in self._connections.items():
            if authority != spare:
                connection.disconnect()

    def _summary(self, failures: dict[HttpUrl, ScrapeError]) -> ScrapeError:
        """Make one error of all; its reason is that of the serving port, where that was asked."""
        at_server = [error.reason for url, error in failures.items() if url.authority == self._serving]
        reason = (at_server or [error.reason for error in failures.values()])[-1]
        if reason is ScrapeFailure.UNREACHABLE and not at_server:
            reason = ScrapeFailure.NO_METRICS
        return ScrapeError("; ".join(map(str, failures.values())), reason=reason)
