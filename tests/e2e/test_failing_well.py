"""Whatever dies under load, clients are answered: the picker, a model server, all of them."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from clients import Answer, complete, load, open_session
from metrics import metric
from processes import Gateway, Tidegate, gateway, sim, until
from servers import model_server, model_servers

SLOW = ("--max-batch-size", "4", "--iteration-ms", "20")


@contextlib.asynccontextmanager
async def sims(count: int, *options: str) -> AsyncIterator[dict[str, Tidegate]]:
    """Run several simulated servers; yields them by URL."""
    async with contextlib.AsyncExitStack() as stack:
        started = await asyncio.gather(*(stack.enter_async_context(sim(*options)) for _ in range(count)))
        yield {url: server for server, url in started}


@contextlib.asynccontextmanager
async def one_stream_on_each(up: Gateway) -> AsyncIterator[list[asyncio.Task[Answer]]]:
    """Hold a stream of some seconds open at every endpoint: each goes where the others are not."""
    states = await up.states()
    async with open_session() as session, asyncio.TaskGroup() as tasks:
        asked = [complete(session, up.url, stream=True, max_tokens=200) for _ in states]
        answers = [tasks.create_task(answer) for answer in asked]
        for name in states:
            await up.shows(name, running_requests=1)
        yield answers


async def picks_resume(up: Gateway) -> None:
    """Check that every further request is picked, and counted as picked."""
    before = await up.drained()
    async with open_session() as session:
        answers = [await complete(session, up.url, stream=False, max_tokens=1) for _ in range(20)]
    assert all(answer.good for answer in answers)
    pool = await up.drained()
    assert pool["unpicked"] == before["unpicked"]
    assert picks(pool) == picks(before) + 20


def picks(pool: dict[str, dict[str, dict[str, int]]]) -> int:
    """Return how many requests the picker has sent anywhere."""
    return sum(endpoint["picks"] for endpoint in pool["endpoints"].values())


async def test_a_picker_that_is_killed_costs_no_request_and_is_started_again() -> None:
    async with sims(2, *SLOW) as servers, gateway(*servers) as up:
        await up.ready()
        async with load(up.url) as asking:
            await asking.goes_on()
            killed = up.child(" picker ")
            os.kill(killed, signal.SIGKILL)
            await up.said("picker exited with SIGKILL; starting it again")
            await up.ready()
            await asking.goes_on()

        assert all(answer.good for answer in asking.answers)
        assert up.child(" picker ") != killed
        await picks_resume(up)


async def test_a_picker_that_hangs_holds_requests_for_a_moment_and_is_replaced() -> None:
    async with sims(2, *SLOW) as servers, gateway(*servers) as up:
        await up.ready()
        async with load(up.url) as asking:
            await asking.goes_on()
            hung = up.child(" picker ")
            os.kill(hung, signal.SIGSTOP)
            await up.said("picker does not answer; starting it again")
            await up.ready()
            await asking.goes_on()

        assert all(answer.good for answer in asking.answers)
        assert max(answer.waited_s for answer in asking.answers) < 3
        assert up.child(" picker ") != hung
        await picks_resume(up)


async def test_an_envoy_that_is_killed_is_started_again_on_the_same_port() -> None:
    async with model_servers(1) as servers, gateway(servers[0].url) as up:
        os.kill(up.child("--config-path"), signal.SIGKILL)
        await up.said("envoy exited with SIGKILL; starting it again")

        async def serves() -> bool:
            try:
                async with aiohttp.request("POST", up.url) as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

        await until(serves)


async def test_a_killed_server_costs_only_the_streams_it_had_begun_and_gets_requests_again_when_back() -> None:
    async with sims(4, *SLOW) as servers, gateway(*servers) as up:
        await up.ready()
        url, dead = next(iter(servers.items()))
        name = url.removeprefix("http://")
        async with one_stream_on_each(up) as streams, load(up.url, clients=24, max_tokens=16) as asking:
            await asking.goes_on()
            dead.process.kill()
            await dead.end()
            await asking.goes_on(60)

        answers = [*asking.answers, *(stream.result() for stream in streams)]
        broken = [answer for answer in answers if not answer.good]
        assert {answer.status for answer in answers} == {200}
        assert broken
        assert all(answer.streamed for answer in broken)
        pool = await up.drained()
        assert pool["endpoints"][name]["state"] == "unreachable"
        assert pool["outcomes"] == {"answered": len(answers) - len(broken), "broken": len(broken)}
        assert await metric(up, "tidegate_outcomes_total", endpoint=name, result="broken") == len(broken)

        await picks_resume(up)
        assert (await up.endpoint(name))["picks"] == pool["endpoints"][name]["picks"]

        async with sim(*SLOW, port=int(url.rpartition(":")[2])):
            await up.ready(name)
            async with load(up.url) as asking:
                await asking.goes_on()
            assert all(answer.good for answer in asking.answers)
            assert (await up.endpoint(name))["picks"] > pool["endpoints"][name]["picks"]


async def test_a_server_dead_but_not_yet_noticed_is_stood_in_for_by_the_second_choice() -> None:
    async with model_server("gone") as gone:
        dead = gone.url
    async with model_servers(7) as (reporter, *servers), contextlib.AsyncExitStack() as stack:
        # Its figures come from elsewhere and stay good: nothing tells the picker that it is dead.
        listed = f"{dead},metrics={reporter.url}/metrics"
        for number, server in enumerate(servers):
            server.queued = 10 + 10 * number
        up = await stack.enter_async_context(gateway(listed, *(server.url for server in servers)))
        await up.ready()

        async def ask() -> tuple[int, str]:
            async with aiohttp.request("POST", up.url) as answer:
                return answer.status, (await answer.json())["served_by"]

        answers = await asyncio.gather(*(ask() for _ in range(5)))

        assert answers == [(200, servers[0].name)] * 5
        pool = await up.drained()
        assert pool["endpoints"][dead.removeprefix("http://")]["picks"] > 0
        assert pool["outcomes"] == {"answered": 5}


@pytest.mark.parametrize("noticed", [True, False])
async def test_with_every_server_down_a_request_gets_503_at_once(noticed: bool) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with model_servers(3) as servers:
            reporter = await stack.enter_async_context(model_server("reporter"))
            metrics = "" if noticed else f",metrics={reporter.url}/metrics"
            up = await stack.enter_async_context(gateway(*(server.url + metrics for server in servers)))
            await up.ready()

        async def all_noticed() -> bool:
            return set((await up.states()).values()) == {"unreachable"}

        if noticed:
            await until(all_noticed)
        started = time.monotonic()
        async with aiohttp.request("POST", up.url) as answer:
            assert answer.status == 503
        assert time.monotonic() - started < 2

        async def told() -> bool:
            return (await up.drained())["outcomes"] == {"unserved": 1}

        await until(told)


async def test_three_hundred_streams_at_a_time_are_all_answered() -> None:
    async with gateway("--demo", "2") as up, open_session() as session:
        await up.ready()
        asked = [complete(session, up.url, stream=True, max_tokens=20) for _ in range(300)]
        answers = await asyncio.gather(*asked)

        assert all(answer.good for answer in answers)
        pool = await up.drained()
        assert pool["outcomes"] == {"answered": 300}
        assert pool["unpicked"] == 0
        assert picks(pool) == 300
