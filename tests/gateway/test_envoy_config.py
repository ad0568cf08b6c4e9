"""What our Envoy's configuration promises, beyond picks and outcomes, tried on the real one."""

import asyncio
import io
from pathlib import Path

import aiohttp
from envoy.service.auth.v3 import external_auth_pb2 as auth

from own_envoy import endpoint_of, observed_envoy
from processes import until
from servers import model_server, model_servers
from tidegate.gateway.envoy.files import write_resources
from tidegate.gateway.envoy.listener import render_listener
from tidegate.gateway.ext_authz import parse_check
from tidegate.pool.outcomes import TokenUsage

MORE_THAN_ENVOYS_DEFAULTS = 1_100
"""Its circuit breakers let 1,024 through."""


async def unpicked(_: auth.CheckResponse) -> auth.CheckResponse:
    """Leave the placing to Envoy."""
    return auth.CheckResponse(ok_response=auth.OkHttpResponse())


async def test_of_a_large_body_the_picker_sees_64_kib_and_the_true_length(tmp_path: Path) -> None:
    async with model_servers(1) as [server], observed_envoy(tmp_path, server) as up:
        for size in (1_000, 65_536, 3_000_000):
            async with aiohttp.request("POST", up.url, data=io.BytesIO(b"x" * size)) as answer:
                assert answer.status == 200

        assert [len(asked.attributes.request.http.raw_body) for asked in up.authorization.asked] == [1000, 65536, 65536]
        assert [parse_check(asked).body_bytes for asked in up.authorization.asked] == [1_000, 65_536, 3_000_000]
        assert server.bodies == [1_000, 65_536, 3_000_000]


async def test_a_request_that_envoy_places_itself_tries_no_dead_server_twice(tmp_path: Path) -> None:
    dead = []
    for name in ("x", "y", "z"):
        async with model_server(name) as gone:
            dead.append(endpoint_of(gone))
    # A dead server has no active requests, which is what least request likes; and there are four attempts.
    async with model_servers(1) as [server], observed_envoy(tmp_path, server, *dead) as up:
        up.authorization.on_its_way = unpicked
        for _ in range(40):
            async with aiohttp.request("POST", up.url, data=b"{}") as answer:
                assert answer.status == 200
        outcomes = await up.told(40)

    assert {outcome.attempts for outcome in outcomes} > {1}
    assert up.outcomes.unpicked == 40


async def test_more_requests_at_a_time_than_envoys_default_limits_all_arrive(tmp_path: Path) -> None:
    async with (
        model_servers(1) as [server],
        observed_envoy(tmp_path, server) as up,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        server.release.clear()
        asked = [asyncio.create_task(session.post(up.url, data=b"{}")) for _ in range(MORE_THAN_ENVOYS_DEFAULTS)]

        async def all_there() -> bool:
            return server.arrived == MORE_THAN_ENVOYS_DEFAULTS

        await until(all_there)
        server.release.set()
        assert {(await answer).status for answer in asked} == {200}


async def test_a_listener_file_that_changes_is_followed_and_cuts_no_stream(tmp_path: Path) -> None:
    async with (
        model_servers(1) as [server],
        observed_envoy(tmp_path, server) as up,
        aiohttp.ClientSession() as session,
    ):
        server.said = {"usage": {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": None}}
        server.release.clear()
        stream = await session.post(f"{up.url}/stream", data=b"{}")
        assert await stream.content.readline() == b"a\n"

        port = int(up.url.rpartition(":")[2])
        changed = render_listener(host="127.0.0.1", port=port, steered=True, usage=True)
        write_resources(tmp_path / "listeners" / "l.json", [changed])

        async def usage_is_told() -> bool:
            async with aiohttp.request("POST", f"{up.url}/v1/completions?x=1", data=b"{}") as answer:
                assert answer.status == 200
            return TokenUsage(prompt_tokens=5, completion_tokens=7) in [o.usage for o in up.outcomes.taken]

        server.release.set()
        await until(usage_is_told)
        assert await stream.content.read() == b"end\n"


async def test_usage_is_read_of_generating_requests_and_large_answers_of_others_pass_whole(tmp_path: Path) -> None:
    async with model_servers(1) as [server], observed_envoy(tmp_path, server, usage=True) as up:
        server.said = {"usage": {"prompt_tokens": 5}, "data": "x" * 12 * 2**20}  # more than Envoy would hold
        async with aiohttp.request("POST", f"{up.url}/v1/embeddings", data=b"{}") as answer:
            assert answer.status == 200
            assert len((await answer.json())["data"]) == 12 * 2**20

        server.said = {"usage": {"prompt_tokens": 5}, "data": "x" * 2**20}
        for path in ("/v1/chat/completions", "/openai/v1/completions?a=b"):
            async with aiohttp.request("POST", up.url + path, data=b"{}") as answer:
                assert answer.status == 200
        outcomes = await up.told(3)

    assert [outcome.usage.prompt_tokens for outcome in outcomes] == [None, 5, 5]
