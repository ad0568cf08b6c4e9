"""Clients of the simulated servers' API, one or many, who remember how each answer went."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

from processes import until

MODEL = "tensorrt_llm"


@dataclass(frozen=True)
class Answer:
    """How one request went, as its client saw it."""

    status: int
    streamed: bool
    whole: bool
    """False: its connection broke, or its last words are missing."""
    waited_s: float
    """Until the response headers."""

    @property
    def good(self) -> bool:
        """Whether the client got all it asked for."""
        return self.status == 200 and self.whole


async def complete(session: aiohttp.ClientSession, url: str, *, stream: bool, max_tokens: int) -> Answer:
    """Ask for a completion; raises what aiohttp raises when not even response headers come."""
    body = json.dumps({"model": MODEL, "prompt": "tide", "max_tokens": max_tokens, "stream": stream})
    clock = asyncio.get_running_loop().time
    started = clock()
    async with session.post(f"{url}/v1/completions", data=body) as answer:
        waited_s = clock() - started
        try:
            text = await answer.text()
        except aiohttp.ClientPayloadError:
            text = ""
    whole = text.endswith("data: [DONE]\n\n" if stream else "}")
    return Answer(answer.status, stream, whole, waited_s)


class Load:
    """Clients that ask again as soon as they are answered, every other one for a stream."""

    def __init__(self, url: str, *, max_tokens: int) -> None:
        self.answers: list[Answer] = []
        self._url = url
        self._max_tokens = max_tokens
        self._over = False

    async def run(self, clients: int) -> None:
        """Ask until stopped, then let the last answers come."""
        async with open_session() as session, asyncio.TaskGroup() as tasks:
            for number in range(clients):
                tasks.create_task(self._client(session, stream=bool(number % 2)))

    async def goes_on(self, count: int = 30) -> None:
        """Wait until that many more good answers have come."""
        target = self._good() + count

        async def enough() -> bool:
            return self._good() >= target

        await until(enough)

    def stop(self) -> None:
        """Ask no more."""
        self._over = True

    def _good(self) -> int:
        return sum(answer.good for answer in self.answers)

    async def _client(self, session: aiohttp.ClientSession, *, stream: bool) -> None:
        while not self._over:
            self.answers.append(await complete(session, self._url, stream=stream, max_tokens=self._max_tokens))


@contextlib.asynccontextmanager
async def load(url: str, *, clients: int = 8, max_tokens: int = 5) -> AsyncIterator[Load]:
    """Keep that many clients asking until the end of the block; every answer is in when it ends."""
    asking = Load(url, max_tokens=max_tokens)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asking.run(clients))
        yield asking
        asking.stop()


def open_session() -> aiohttp.ClientSession:
    """Return a session without a limit on its connections, nor a patience that ends before the test's."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=30))
