"""A Triton's exposition as the frontend passes it on: byte for byte, and with the composite series that it lacks.

Publishing path: Triton → **one GET for all who ask at the same time** → composites added → /metrics.
"""

import asyncio

from tidegate.protocol.engines import ENGINES
from tidegate.protocol.errors import ScrapeError, ScrapeFailure
from tidegate.publish.exporter.composites import add_composites
from tidegate.scrape.http import HttpConnection, HttpUrl

TIMEOUT_S = 2.0

_ENGINE = ENGINES["triton-tensorrt-llm"]


class PassedOnMetrics:
    """Those of one Triton. The owner calls `close` at the end."""

    def __init__(self, url: HttpUrl) -> None:
        self._url = url
        self._connection = HttpConnection(url.host, url.port, timeout_s=TIMEOUT_S)
        self._fetch: asyncio.Task[bytes | ScrapeError] | None = None

    async def fetch(self) -> bytes:
        """Return them as they are now. Raises ScrapeError when they cannot be had within TIMEOUT_S."""
        if self._fetch is None:
            self._fetch = asyncio.create_task(self._get(), name=f"get {self._url}")
        # Whoever asks may leave; the others still want the answer.
        answer = await asyncio.shield(self._fetch)
        if isinstance(answer, ScrapeError):
            raise answer
        return answer

    def close(self) -> None:
        """End the GET under way, if any, and disconnect."""
        if self._fetch is not None:
            self._fetch.cancel()
        self._connection.close()

    async def _get(self) -> bytes | ScrapeError:
        try:
            answer = await self._connection.get(self._url.path)
        except ScrapeError as error:
            return error
        finally:
            self._fetch = None
        if answer.status != 200:
            problem = f"status {answer.status} instead of 200"
            return ScrapeError(problem, reason=ScrapeFailure.BAD_STATUS, url=str(self._url))
        try:
            return add_composites(answer.body, _ENGINE)
        except ScrapeError:
            return answer.body  # A line is malformed: that is for whoever reads it to say.
