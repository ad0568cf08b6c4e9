"""A server whose metrics fail grows stale; nobody else notices, and it still gets its share."""

import asyncio

import aiohttp
import pytest

from processes import Gateway, gateway, until
from servers import ModelServer, model_servers

HUGE = b"# tide in, tide out\n" * 2**20


async def ask(up: Gateway, count: int) -> list[int]:
    """Send requests, all at a time; returns their statuses."""

    async def one() -> int:
        async with aiohttp.request("POST", up.url) as answer:
            return answer.status

    return await asyncio.gather(*(one() for _ in range(count)))


@pytest.mark.parametrize(
    "answer", [500, b"<html>\xff\0 no metrics", HUGE, None], ids=["500", "garbage", "20 MB", "never"]
)
async def test_a_server_with_bad_metrics_grows_stale_alone_and_is_never_shut_out(answer: int | bytes | None) -> None:
    async with model_servers(3) as servers, gateway(*(server.url for server in servers)) as up:
        await up.ready(*(server.address for server in servers))
        bad, *others = servers
        break_metrics(bad, answer)

        assert await states_until_old(up, bad) == {"ready"}
        assert (await up.endpoint(bad.address))["error"]
        assert await ask(up, 10) == [200] * 10

        for server in others:
            server.queued, server.running, server.kv = 50, 16, 0.9
            await up.shows(server.address, queued_requests=50)
        before = bad.arrived
        assert await ask(up, 20) == [200] * 20
        assert bad.arrived > before
        assert (await up.drained())["outcomes"] == {"answered": 30}

        mend_metrics(bad)
        await up.ready(bad.address)


def break_metrics(server: ModelServer, answer: int | bytes | None) -> None:
    """Answer every scrape with this status or body from now on, or not at all."""
    server.metrics = answer
    if answer is None:
        server.metrics_release.clear()


def mend_metrics(server: ModelServer) -> None:
    """Answer scrapes well again."""
    server.metrics = None
    server.metrics_release.set()


async def states_until_old(up: Gateway, bad: ModelServer) -> set[str]:
    """Wait until the server is stale, its report over 2 s old; returns the states the others had meanwhile."""
    seen: set[str] = set()

    async def is_old() -> bool:
        endpoints = (await up.pool())["endpoints"]
        row = endpoints.pop(bad.address)
        seen.update(endpoint["state"] for endpoint in endpoints.values())
        return row["state"] == "stale" and row["age_s"] > 2

    await until(is_old)
    return seen
