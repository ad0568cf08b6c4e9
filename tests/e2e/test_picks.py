"""Picks are honoured: real Envoy, real picker, backends that say who they are."""

import asyncio
import io
from collections import Counter

import aiohttp
import pytest

from processes import Gateway, gateway, until
from servers import ModelServer, model_servers


async def ask(url: str, *, headers: dict[str, str] | None = None, size: int = 100) -> str:
    """Return who answered."""
    async with aiohttp.request(
        "POST", f"{url}/v1/completions", data=io.BytesIO(b"x" * size), headers=headers
    ) as answer:
        assert answer.status == 200
        return str((await answer.json())["served_by"])


async def shown(up: Gateway, server: ModelServer) -> None:
    """Wait until the pool shows the load that the server reports now."""

    async def is_shown() -> bool:
        endpoint = await up.endpoint(server.address)
        return (endpoint["queued_requests"], endpoint["kv_utilization"]) == (server.queued, server.kv)

    await until(is_shown)


async def test_every_request_goes_to_the_server_with_the_lowest_load() -> None:
    async with model_servers(4) as servers, gateway(*(server.url for server in servers)) as up:
        for idle in servers:
            for server in servers:
                server.queued, server.running, server.kv = (0, 1, 0.1) if server is idle else (40, 16, 0.9)
            for server in servers:
                await shown(up, server)

            assert {await ask(up.url) for _ in range(20)} == {idle.name}


async def test_what_the_picker_counts_as_picked_is_what_the_servers_saw() -> None:
    async with model_servers(3) as servers, gateway(*(server.url for server in servers)) as up:
        await up.ready(*(server.address for server in servers))

        answers = Counter(await asyncio.gather(*(ask(up.url) for _ in range(200))))

        async def ended() -> bool:
            return (await up.pool())["outcomes"].get("answered", 0) == 200

        await until(ended)
        pool = await up.pool()
        by_address = pool["endpoints"]
        assert {server.name: by_address[server.address]["picks"] for server in servers} == answers
        assert {server.name: by_address[server.address]["served"] for server in servers} == answers
        assert pool["unpicked"] == 0
        assert all(endpoint["in_flight"] == 0 for endpoint in by_address.values())
        assert min(answers.values()) > 200 / 3 / 2  # a burst over equal servers spreads


async def test_a_client_can_neither_choose_its_destination_nor_see_the_pick_leak_to_the_server() -> None:
    async with model_servers(2) as servers, gateway(*(server.url for server in servers)) as up:
        busy, idle = servers
        busy.queued = 50
        await shown(up, busy)
        await shown(up, idle)

        served_by = {
            await ask(up.url, headers={"x-gateway-destination-endpoint": busy.address, "x-request-id": "the-same"})
            for _ in range(20)
        }

        assert served_by == {idle.name}
        assert idle.arrived == 20
        names = {name.lower() for headers in idle.headers for name in headers}
        assert not [name for name in names if "destination" in name or "tidegate" in name]


async def test_a_client_can_change_neither_retries_nor_timeouts() -> None:
    wishes = {"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "50", "x-envoy-upstream-rq-timeout-ms": "100"}
    async with model_servers(1) as [server], gateway(server.url) as up:
        await up.ready(server.address)
        server.status = 500
        async with aiohttp.request("POST", up.url, headers=wishes) as refused:
            assert refused.status == 500
        assert server.arrived == 1

        server.status = 200
        server.release.clear()
        asyncio.get_running_loop().call_later(0.5, server.release.set)
        assert await ask(up.url, headers=wishes) == server.name
        assert not [name for headers in server.headers for name in headers if name.lower().startswith("x-envoy")]


async def test_requests_in_flight_are_counted_and_released_even_when_clients_repeat_their_request_id() -> None:
    async with model_servers(2) as servers, gateway(*(server.url for server in servers)) as up:
        await up.ready(*(server.address for server in servers))
        for server in servers:
            server.release.clear()
        requests = [asyncio.create_task(ask(up.url, headers={"x-request-id": "same"})) for _ in range(10)]

        async def in_flight() -> int:
            return sum(endpoint["in_flight"] for endpoint in (await up.pool())["endpoints"].values())

        async def all_in_flight() -> bool:
            return await in_flight() == 10

        async def none_in_flight() -> bool:
            return await in_flight() == 0

        await until(all_in_flight)
        for server in servers:
            server.release.set()
        await asyncio.gather(*requests)
        await until(none_in_flight)


async def test_clients_that_leave_are_counted_as_aborted_and_released() -> None:
    async with model_servers(2) as servers, gateway(*(server.url for server in servers)) as up:
        await up.ready(*(server.address for server in servers))
        for server in servers:
            server.release.clear()
        requests = [asyncio.create_task(ask(up.url)) for _ in range(6)]

        async def arrived() -> bool:
            return sum(server.arrived for server in servers) == 6

        await until(arrived)
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)

        async def all_aborted() -> bool:
            pool = await up.pool()
            ended = pool["outcomes"] == {"aborted": 6}
            return ended and all(endpoint["in_flight"] == 0 for endpoint in pool["endpoints"].values())

        await until(all_aborted)


@pytest.mark.parametrize("size", [0, 10, 65_536, 65_537, 2**20, 5 * 2**20])
async def test_bodies_of_any_size_arrive_whole_at_the_picked_server(size: int) -> None:
    async with model_servers(2) as servers, gateway(*(server.url for server in servers)) as up:
        busy, idle = servers
        busy.queued = 50
        await shown(up, busy)
        await shown(up, idle)

        assert await ask(up.url, size=size) == idle.name
        assert idle.bodies == [size]


async def test_a_server_that_refuses_is_skipped_and_another_answers() -> None:
    async with model_servers(3) as servers, gateway(*(server.url for server in servers)) as up:
        refusing, *others = servers
        refusing.status = 503
        for server in others:
            server.queued = 30
        for server in servers:
            await shown(up, server)

        answers = Counter([await ask(up.url) for _ in range(30)])

        assert refusing.arrived > 0
        assert sum(answers.values()) == 30
        assert set(answers) <= {server.name for server in others}
        assert refusing.arrived < 15  # passed over for a while after each refusal


async def test_a_server_that_fails_at_once_does_not_draw_the_traffic() -> None:
    async with model_servers(2) as servers, gateway(*(server.url for server in servers)) as up:
        failing, busy = servers
        failing.status = 500
        busy.queued = 20
        for server in servers:
            await shown(up, server)

        statuses = []
        for _ in range(60):
            async with aiohttp.request("POST", up.url) as answer:
                statuses.append(answer.status)

        assert 3 <= statuses.count(500) < 20
        assert statuses.count(200) == busy.answered > 40
