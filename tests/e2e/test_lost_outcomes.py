"""What is told of requests under which something died: the picker, Envoy with its log, or their first endpoint."""

import asyncio
import contextlib
import functools
import os
import signal
from typing import Any

import aiohttp
import pytest

from clients import MODEL, complete, open_session
from metrics import metric
from processes import gateway, until
from servers import model_server, model_servers

UNPICKED = 6
PICKED = 20
ENDED_MEANWHILE = 40


async def test_requests_placed_while_the_picker_was_down_are_told_to_the_next_one_as_unpicked() -> None:
    async with model_servers(2) as servers, gateway(*(server.url for server in servers)) as up:
        await up.ready()
        for server in servers:
            server.release.clear()  # they last until the next picker is there
        async with open_session() as session, asyncio.TaskGroup() as tasks:
            os.kill(up.child(" picker "), signal.SIGKILL)
            asked = [tasks.create_task(status_of(session, up.url)) for _ in range(UNPICKED)]

            async def all_placed() -> bool:
                return sum(server.arrived for server in servers) == UNPICKED

            await until(all_placed)
            await up.said("picker exited with SIGKILL; starting it again")
            await up.ready()
            assert (await until(up.pool))["outcomes"] == {}
            for server in servers:
                server.release.set()
        assert [task.result() for task in asked] == [200] * UNPICKED

        async def told() -> dict[str, Any]:
            pool = await up.pool()
            return pool if pool.get("outcomes") == {"answered": UNPICKED} else {}

        pool = await until(told)
        assert pool["unpicked"] == UNPICKED
        assert [(it["picks"], it["in_flight"]) for it in pool["endpoints"].values()] == [(0, 0)] * 2
        assert await metric(up, "tidegate_unpicked_requests_total") == UNPICKED


@pytest.mark.parametrize("logged_before", [True, False])
async def test_requests_that_end_while_the_picker_is_down_are_told_to_the_next_one(logged_before: bool) -> None:
    async with (
        model_servers(2) as servers,
        gateway(*(server.url for server in servers)) as up,
        open_session() as session,
    ):
        await up.ready()
        if logged_before:  # then Envoy has a stream to the picker, which breaks off
            assert await status_of(session, up.url) == 200
            await up.drained()
        for server in servers:
            server.release.clear()
        async with asyncio.TaskGroup() as tasks:
            picked = [tasks.create_task(status_of(session, up.url)) for _ in range(PICKED)]

            async def all_placed() -> bool:
                return sum(endpoint["in_flight"] for endpoint in (await up.pool())["endpoints"].values()) == PICKED

            await until(all_placed)
            os.kill(up.child(" picker "), signal.SIGKILL)
            await up.said("picker exited with SIGKILL; starting it again")
            for server in servers:
                server.release.set()
        assert [task.result() for task in picked] == [200] * PICKED
        for _ in range(ENDED_MEANWHILE):
            assert await status_of(session, up.url) == 200
        assert await up.pool() == {}, "these were to end before there was a picker again"

        async def told() -> dict[str, Any]:
            pool = await up.pool()
            return pool if pool.get("outcomes") == {"answered": PICKED + ENDED_MEANWHILE} else {}

        await until(told)


@pytest.mark.parametrize("logged_before", [True, False])
async def test_streams_whose_outcomes_died_with_envoy_are_forgotten_as_soon_as_reports_lack_them(
    logged_before: bool,
) -> None:
    async with gateway("--demo", "2") as up, open_session() as session, contextlib.AsyncExitStack() as stack:
        await up.ready()
        if logged_before:  # Envoy opens its log with the first outcome; one that was never open cannot break off.
            assert (await complete(session, up.url, stream=True, max_tokens=1)).good
            await up.drained()
        long = {"model": MODEL, "prompt": "tide", "max_tokens": 3000, "stream": True}
        streams = [
            await stack.enter_async_context(session.post(f"{up.url}/v1/completions", json=long)) for _ in range(6)
        ]

        async def all_reported() -> list[dict[str, Any]]:
            loads = list((await up.pool()).get("endpoints", {}).values())
            there = sum((load["queued_requests"] or 0) + (load["running_requests"] or 0) for load in loads)
            return loads if there == len(streams) else []

        counted = [load["in_flight"] for load in await until(all_reported)]
        assert sum(counted) == len(streams)
        assert all(counted)

        os.kill(up.child("--config-path"), signal.SIGKILL)
        for stream in streams:
            with pytest.raises(aiohttp.ClientError):
                await stream.read()
        if not logged_before:  # Then the next Envoy's log tells that there is a new one.
            await until(functools.partial(answers, session, up.url))
        pool = await up.drained()  # its patience is a quarter of what a repair without a doubt takes

        assert pool["outcomes"] == {"answered": 1}


async def test_the_metrics_tell_of_a_retry_and_give_the_answer_to_who_stood_in() -> None:
    async with model_server("gone") as gone:
        dead = gone.url
    async with model_servers(2) as (reporter, second):
        # Its figures come from elsewhere and stay good: nothing tells the picker that it is dead.
        second.queued = 10
        async with gateway(f"{dead},metrics={reporter.url}/metrics", second.url) as up:
            await up.ready()
            assert await metric(up, "tidegate_retries_total") == 0

            async with aiohttp.request("POST", up.url, data=b"{}") as answer:
                assert (answer.status, (await answer.json())["served_by"]) == (200, second.name)

            pool = await up.drained()
            assert pool["endpoints"][dead.removeprefix("http://")]["picks"] == 1
            assert await metric(up, "tidegate_retries_total") == 1
            assert await metric(up, "tidegate_outcomes_total", endpoint=second.address, result="answered") == 1
            assert await metric(up, "tidegate_outcomes_total") == 1


async def answers(session: aiohttp.ClientSession, url: str) -> bool:
    """Return whether a gateway that was started again answers."""
    try:
        return (await complete(session, url, stream=True, max_tokens=1)).good
    except aiohttp.ClientError:
        return False


async def status_of(session: aiohttp.ClientSession, url: str) -> int:
    """Ask for an answer and take it whole; returns its status."""
    async with session.post(url, data=b"{}") as answer:
        await answer.read()
        return answer.status
