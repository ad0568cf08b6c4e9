"""Every count of requests in flight comes down again, whoever leaves or dies in between."""

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import aiohttp

from clients import MODEL
from processes import Gateway, gateway, sim, until
from servers import model_server

QUICK = ("--iteration-ms", "1", "--prefill-us", "0", "--max-batch-size", "64")
PATIENCE_S = 0.2
"""So long wait at most those who leave: for an answer that takes longer, if only a little."""


def body(max_tokens: int) -> bytes:
    """Return a request for a stream of so many tokens, each of which takes 2 ms and more."""
    return f'{{"model": "{MODEL}", "prompt": "tide", "max_tokens": {max_tokens}, "stream": true}}'.encode()


SHORT, LONG = body(3), body(100)


class Storm:
    """Clients that ask again and again; a third of their requests they give up at a random moment."""

    def __init__(self, url: str, *, seed: int) -> None:
        self.results: Counter[str] = Counter()
        self._url = url
        self._rng = random.Random(seed)

    async def run(self, requests: int, *, clients: int) -> None:
        """Send so many requests."""
        left = iter(range(requests))
        connections = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connections) as session, asyncio.TaskGroup() as tasks:
            for _ in range(clients):
                tasks.create_task(self._client(session, left))

    async def done(self, requests: int) -> None:
        """Wait until so many have ended."""

        async def enough() -> bool:
            return self.results.total() >= requests

        await until(enough)

    async def _client(self, session: aiohttp.ClientSession, left: Iterator[int]) -> None:
        for _ in left:
            # They leave while they connect, while being picked for, while waiting, and in mid-stream.
            leaves = self._rng.random() < 1 / 3
            patience_s = self._rng.random() ** 2 * PATIENCE_S if leaves else None
            try:
                async with (
                    asyncio.timeout(patience_s),
                    session.post(self._url, data=LONG if leaves else SHORT) as answer,
                ):
                    await answer.read()
                    assert answer.status == 200
                self.results["answered"] += 1
            except TimeoutError:
                self.results["aborted"] += 1


@contextlib.asynccontextmanager
async def sims(count: int) -> AsyncIterator[list[str]]:
    """Run simulated servers; yields their URLs."""
    async with contextlib.AsyncExitStack() as stack:
        started = await asyncio.gather(*(stack.enter_async_context(sim(*QUICK)) for _ in range(count)))
        yield [url for _, url in started]


async def test_of_ten_thousand_requests_a_third_of_them_aborted_none_stays_in_flight() -> None:
    async with sims(2) as urls, model_server("busy") as busy:
        # Reports that always have room for more than we count can repair nothing.
        busy.running = 1_000_000
        async with gateway(*(f"{url},metrics={busy.url}/metrics" for url in urls)) as up:
            await up.ready()
            storm = Storm(f"{up.url}/v1/completions", seed=1)

            await storm.run(10_000, clients=48)

            pool = await up.drained()
    assert storm.results.total() == 10_000
    assert storm.results["aborted"] > 2_000
    assert set(pool["outcomes"]) == {"answered", "aborted"}
    assert pool["outcomes"]["answered"] >= storm.results["answered"]
    assert pool["outcomes"]["aborted"] > 1_000
    assert pool["unpicked"] == 0
    # Some left before they were picked for; every other one was counted, and has ended.
    picks = sum(endpoint["picks"] for endpoint in pool["endpoints"].values())
    assert storm.results["answered"] <= picks <= sum(pool["outcomes"].values())


async def test_a_picker_killed_again_and_again_under_load_has_nothing_in_flight_seconds_later() -> None:
    async with sims(2) as urls, gateway(*urls) as up:
        await up.ready()
        storm = Storm(f"{up.url}/v1/completions", seed=2)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(storm.run(6_000, clients=32))
            for requests in (500, 1_500, 2_500):
                await storm.done(requests)
                os.kill(up.child(" picker "), signal.SIGKILL)
                await back(up)
            assert not running.done()

        pool = await up.drained()

    assert storm.results.total() == 6_000
    assert sum(endpoint["picks"] for endpoint in pool["endpoints"].values()) > 100  # the last picker's own


async def back(up: Gateway) -> None:
    """Wait until a new picker answers, and picks."""

    async def picks() -> bool:
        return any(endpoint["picks"] for endpoint in (await up.pool()).get("endpoints", {}).values())

    await until(picks)
