"""Gateways that are not ours: real Envoys that ask `tidegate picker` by ext_proc, as other projects configure them."""

import asyncio
import contextlib
import hashlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from foreign_gateway import ForeignGateway, Mode, foreign_gateway, original_dst, override_host
from pickers import Picker, picker
from servers import ModelServer, model_servers

CLUSTERS = ("ORIGINAL_DST", "override_host")
MODES: tuple[Mode, ...] = ("FULL_DUPLEX_STREAMED", "BUFFERED", "NONE")


@contextlib.asynccontextmanager
async def gateway_before(
    servers: list[ModelServer], directory: Path, *, mode: Mode, cluster: str, subset: list[str] | None = None
) -> AsyncIterator[tuple[Picker, ForeignGateway]]:
    """Run picker and gateway."""
    addresses = [server.address for server in servers]
    found = original_dst() if cluster == "ORIGINAL_DST" else override_host(addresses)
    async with (
        picker(directory / "pool.yaml", *addresses) as running,
        foreign_gateway(directory, running.grpc, mode=mode, cluster=found, subset=subset) as foreign,
    ):
        for server in servers:
            await running.shows(server.address, queued_requests=server.queued)
        yield running, foreign


async def ask(url: str, content: bytes | None, **headers: str) -> tuple[int, dict[str, str]]:
    """POST (or GET, without a body); returns the status and the server's answer."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    data = None if content is None else io.BytesIO(content)
    async with aiohttp.request("POST" if data else "GET", url, data=data, headers=named) as answer:
        return answer.status, await answer.json()


def chat(size: int = 100) -> bytes:
    """Return a chat completion request of about this many bytes."""
    return json.dumps({"messages": [{"role": "user", "content": "x" * size}], "model": "m"}).encode()


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("mode", MODES)
async def test_every_pick_is_honoured_and_every_body_arrives_as_it_was_sent(
    tmp_path: Path, mode: Mode, cluster: str
) -> None:
    async with model_servers(3) as servers:
        for server in servers:
            server.queued = 40
        idle = servers[1]
        idle.queued = 0
        async with gateway_before(servers, tmp_path, mode=mode, cluster=cluster) as (running, foreign):
            # BUFFERED: the gateway itself refuses what does not fit into its 1 MiB.
            bodies = [None, *(chat(size) for size in (0, 61_900, 200_000, 500_000))]
            bodies += [] if mode == "BUFFERED" else [chat(5 * 2**20)]
            for content in bodies:
                status, answer = await ask(f"{foreign.url}/v1/chat/completions", content)
                assert (status, answer["served_by"]) == (200, idle.name)
                assert answer["body_sha256"] == hashlib.sha256(content or b"").hexdigest()

            pool = await running.drained()
        assert pool["endpoints"][idle.address]["picks"] == idle.arrived == len(bodies)


@pytest.mark.parametrize("cluster", CLUSTERS)
async def test_a_client_cannot_name_its_destination(tmp_path: Path, cluster: str) -> None:
    async with model_servers(2) as servers:
        busy, idle = servers
        busy.queued = 40
        async with gateway_before(servers, tmp_path, mode="FULL_DUPLEX_STREAMED", cluster=cluster) as (_, foreign):
            status, answer = await ask(foreign.url, chat(), x_gateway_destination_endpoint=busy.address)

    assert (status, answer["served_by"]) == (200, idle.name)
    assert busy.arrived == 0


async def test_only_endpoints_of_the_gateways_subset_are_picked(tmp_path: Path) -> None:
    async with model_servers(3) as servers:
        allowed = servers[2]
        allowed.queued = 40
        subset = [allowed.address]
        async with gateway_before(
            servers, tmp_path, mode="FULL_DUPLEX_STREAMED", cluster="override_host", subset=subset
        ) as (_, foreign):
            served_by = {(await ask(foreign.url, content))[1]["served_by"] for content in [None, *[chat()] * 10]}

    assert served_by == {allowed.name}


@pytest.mark.parametrize("mode", ["FULL_DUPLEX_STREAMED", "BUFFERED"])
async def test_refusals_reach_the_client_with_their_reasons(tmp_path: Path, mode: Mode) -> None:
    async with model_servers(1) as servers:
        async with gateway_before(servers, tmp_path, mode=mode, cluster="ORIGINAL_DST") as (_, foreign):
            status, answer = await ask(f"{foreign.url}/v1/chat/completions", b'{"messages": []}')
            assert status == 400
            assert "model not found in request body" in str(answer)

        async with (
            picker(tmp_path / "empty.yaml") as running,
            foreign_gateway(tmp_path, running.grpc, mode=mode, cluster=original_dst()) as foreign,
            aiohttp.request("POST", f"{foreign.url}/v1/chat/completions", data=chat()) as refused,
        ):
            assert refused.status == 503
            assert refused.headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"
            assert (await refused.json())["error"]["code"] == "rejected-no-endpoints"


@pytest.mark.parametrize("cluster", CLUSTERS)
async def test_streams_go_on_after_the_picker_has_closed_its_side_and_envoy_counts_no_failure(
    tmp_path: Path, cluster: str
) -> None:
    async with (
        model_servers(2) as servers,
        gateway_before(servers, tmp_path, mode="FULL_DUPLEX_STREAMED", cluster=cluster) as (running, foreign),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        for server in servers:
            server.release.clear()
        streams = await asyncio.gather(*(session.post(f"{foreign.url}/stream", data=chat()) for _ in range(40)))
        firsts = [await stream.content.readline() for stream in streams]
        for server in servers:
            server.release.set()
        rests = [await stream.content.read() for stream in streams]

        assert set(firsts) == {b"a\n", b"b\n"}
        assert rests == [b"end\n"] * 40
        pool = await running.drained()
        assert sum(endpoint["picks"] for endpoint in pool["endpoints"].values()) == 40
        counts = await foreign.ext_proc_counts()
        failures = {name: count for name, count in counts.items() if "fail" in name or "timeout" in name}
        assert counts["streams_started"] == 40
        assert counts["stream_msgs_sent"] == 120  # headers, body and its end of each request, nothing of an answer
        assert failures
        assert not any(failures.values())


@contextlib.asynccontextmanager
async def hasty_server(answer: bytes) -> AsyncIterator[str]:
    """Serve 401 with this body as soon as the request headers are there; yields `host:port`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 401 No\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)
            await writer.drain()
            while await reader.read(65_536):
                pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_an_answer_that_comes_before_the_request_is_read_arrives_whole(tmp_path: Path) -> None:
    answer = b"no entry " * 20_000
    async with (
        model_servers(1) as [reporter],
        hasty_server(answer) as address,
        picker(tmp_path / "pool.yaml", lines=[_entry_reported_by(reporter, address)]) as running,
        foreign_gateway(
            tmp_path, running.grpc, mode="FULL_DUPLEX_STREAMED", cluster=override_host([address])
        ) as foreign,
    ):
        for size in (100, 60_000, 200_000, 900_000, 5_000_000):
            for _ in range(5):
                async with aiohttp.request("POST", foreign.url, data=io.BytesIO(b"x" * size)) as refused:
                    assert refused.status == 401
                    assert await refused.read() == answer
        counts = await foreign.ext_proc_counts()
    assert counts["streams_failed"] == 0


def _entry_reported_by(reporter: ModelServer, address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"  - {{name: hasty, address: {host}, port: {port}, metricsPort: {reporter.port}, metricsPath: /metrics}}\n"
