"""What the access log of a real Envoy tells of requests that end in every way there is."""

import asyncio
import contextlib
import time
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from envoy.service.auth.v3 import external_auth_pb2 as auth
from google.rpc import status_pb2

from factories import signals
from own_envoy import ObservedEnvoy, endpoint_of, observed_envoy
from processes import until
from servers import model_server, model_servers
from tidegate.pool.endpoint import Endpoint
from tidegate.pool.outcomes import Result


async def dead_endpoint(name: str) -> Endpoint:
    """Return one at which nobody listens."""
    async with model_server(name) as server:
        return endpoint_of(server)


async def test_an_answer_is_told_with_its_server_and_without_a_time_to_first_token(tmp_path: Path) -> None:
    async with model_servers(1) as [server], observed_envoy(tmp_path, server) as up:
        async with aiohttp.request("POST", up.url, data=b"{}") as answer:
            assert answer.status == 200
        [outcome] = await up.told()

    assert (outcome.result, outcome.served_by, outcome.attempts) == (Result.ANSWERED, server.address, 1)
    assert outcome.decision_id == "ours-0"
    assert outcome.ttft_s is None


async def test_of_a_stream_the_time_to_first_token_is_that_of_the_first_byte_not_of_the_headers(tmp_path: Path) -> None:
    async with model_servers(1) as [server], observed_envoy(tmp_path, server) as up:
        server.first_token.clear()
        asked_at = time.monotonic()
        async with aiohttp.request("POST", f"{up.url}/stream", data=b"{}") as answer:
            headers_after_s = time.monotonic() - asked_at
            await asyncio.sleep(0.3)
            released_at = time.monotonic()
            server.first_token.set()
            assert await answer.read() == b"a\nend\n"
        [outcome] = await up.told()

    assert outcome.result is Result.ANSWERED
    assert outcome.ttft_s is not None
    # Envoy's clock starts with the request's last byte, after ours.
    assert released_at - asked_at - headers_after_s <= outcome.ttft_s <= time.monotonic() - asked_at
    histogram = up.outcomes.ttft["a"]
    assert histogram.sum == outcome.ttft_s
    assert histogram.cumulative()[-1] == (float("inf"), 1)


async def test_the_time_to_first_token_of_a_stream_includes_the_attempt_before_it(tmp_path: Path) -> None:
    held = []

    async def refuse(_: web.Request) -> web.Response:
        began = time.monotonic()
        await asyncio.sleep(0.3)
        held.append(time.monotonic() - began)
        return web.Response(status=503)

    app = web.Application()
    app.router.add_post("/stream", refuse)
    async with TestServer(app, host="127.0.0.1") as full, model_servers(1) as [server]:
        address = f"127.0.0.1:{full.port}"
        first = Endpoint(name="full", host="127.0.0.1", port=full.port or 0, address=address)
        async with observed_envoy(tmp_path, first, server) as up:
            prefer(up, "full")
            asked_at = time.monotonic()
            async with aiohttp.request("POST", f"{up.url}/stream", data=b"{}") as answer:
                assert await answer.read() == b"a\nend\n"
            [outcome] = await up.told()

    assert (outcome.result, outcome.served_by, outcome.attempts) == (Result.ANSWERED, server.address, 2)
    assert outcome.ttft_s is not None
    [held_s] = held
    assert held_s <= outcome.ttft_s <= time.monotonic() - asked_at


@pytest.mark.parametrize("path", ["/", "/stream"])
async def test_a_client_that_leaves_has_aborted_before_or_after_the_first_token(tmp_path: Path, path: str) -> None:
    async with model_servers(1) as [server], observed_envoy(tmp_path, server) as up:
        server.release.clear()
        async with aiohttp.ClientSession() as session:
            request = asyncio.create_task(session.post(up.url + path, data=b"{}"))

            async def arrived() -> bool:
                return server.arrived == 1 and (path == "/" or request.done())

            await until(arrived)
            if request.done():
                (await request).close()
            request.cancel()
        [outcome] = await up.told()

    assert (outcome.result, outcome.served_by) == (Result.ABORTED, server.address)
    assert (outcome.ttft_s is None) == (path == "/")
    assert up.pool.state(up.pool.rows[0], time.monotonic()) == "unknown"  # the server is not to blame


async def test_a_stream_whose_server_dies_is_broken_although_its_status_is_200(tmp_path: Path) -> None:
    async with model_servers(1) as [server], observed_envoy(tmp_path, server) as up:
        server.release.clear()
        async with aiohttp.request("POST", f"{up.url}/stream", data=b"{}") as answer:
            assert await answer.content.readline() == b"a\n"
            server.dies.set()
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        [outcome] = await up.told()

    assert (outcome.result, outcome.served_by) == (Result.BROKEN, server.address)
    assert outcome.ttft_s is not None


async def test_an_endpoint_that_breaks_three_streams_in_a_row_is_passed_over_for_one_that_does_not(
    tmp_path: Path,
) -> None:
    async with model_servers(2) as [bad, good], observed_envoy(tmp_path, bad, good) as up:
        prefer(up, good.name)
        assert await _post(up.url) == 200
        await up.told(1)
        prefer(up, bad.name)
        bad.release.clear()
        for number in range(1, 4):
            assert [row.failures for row in up.pool.rows] == [0, 0]
            bad.dies.clear()
            async with aiohttp.request("POST", f"{up.url}/stream", data=b"{}") as answer:
                assert await answer.content.readline() == b"a\n"
                dies_at = time.monotonic()
                bad.dies.set()
                with pytest.raises(aiohttp.ClientPayloadError):
                    await answer.read()
            outcomes = await up.told(1 + number)

    assert [(outcome.result, outcome.served_by) for outcome in outcomes[1:]] == [(Result.BROKEN, bad.address)] * 3
    assert [row.failures for row in up.pool.rows] == [1, 0]
    # Asked for the moment of its last death: on a slow machine its time may be over already.
    assert [up.pool.state(row, dies_at) for row in up.pool.rows] == ["ejected", "ready"]
    assert up.pool.view(dies_at).eligible.tolist() == [False, True]


async def test_a_retried_request_is_answered_by_another_and_its_first_server_passed_over(tmp_path: Path) -> None:
    dead = await dead_endpoint("dead")
    async with model_servers(1) as [server], observed_envoy(tmp_path, dead, server) as up:
        for number in range(1, 40):  # which one is picked first, chance decides
            async with aiohttp.request("POST", up.url, data=b"{}") as answer:
                assert (answer.status, (await answer.json())["served_by"]) == (200, server.name)
            outcomes = await up.told(number)
            if outcomes[-1].attempts > 1:
                break

    assert {(outcome.result, outcome.served_by) for outcome in outcomes} == {(Result.ANSWERED, server.address)}
    assert outcomes[-1].attempts == 2
    assert up.outcomes.retries == 1
    assert [row.failures for row in up.pool.rows] == [1, 0]


async def test_without_any_server_that_answers_a_request_is_unserved(tmp_path: Path) -> None:
    async with observed_envoy(tmp_path, await dead_endpoint("dead")) as up:
        async with aiohttp.request("POST", up.url, data=b"{}") as answer:
            assert answer.status == 503
        [outcome] = await up.told()

    assert outcome.result is Result.UNSERVED
    assert up.outcomes.unpicked == 0


@pytest.mark.parametrize(("status", "attempts"), [(500, 1), (503, 4)])
async def test_a_servers_own_errors_are_its_errors_retried_or_not(tmp_path: Path, status: int, attempts: int) -> None:
    async with model_servers(1) as [server], observed_envoy(tmp_path, server) as up:
        server.status = status
        async with aiohttp.request("POST", up.url, data=b"{}") as answer:
            assert answer.status == status
        [outcome] = await up.told()

    assert (outcome.result, outcome.served_by) == (Result.SERVER_ERROR, server.address)
    assert outcome.attempts == server.arrived == attempts


async def test_a_request_that_is_denied_counts_nowhere_afterwards(tmp_path: Path) -> None:
    async with model_servers(1) as [server], observed_envoy(tmp_path, server) as up:
        up.authorization.on_its_way = _deny
        async with aiohttp.request("POST", up.url, data=b"{}") as answer:
            assert (answer.status, await answer.text()) == (429, "later")
        [outcome] = await up.told()

    assert (outcome.result, outcome.served_by, outcome.decision_id) == (Result.DENIED, "", "ours-0")
    assert server.arrived == 0


async def test_an_endpoint_is_not_to_blame_for_requests_that_were_denied_on_their_way_to_it(tmp_path: Path) -> None:
    async with model_servers(2) as [chosen, other], observed_envoy(tmp_path, chosen, other) as up:
        prefer(up, other.name)
        assert await _post(up.url) == 200
        await up.told(1)
        prefer(up, chosen.name)
        up.authorization.on_its_way = _deny
        began = time.monotonic()
        for number in range(1, 5):
            assert await _post(up.url) == 429
            outcomes = await up.told(1 + number)

    assert {outcome.result for outcome in outcomes[1:]} == {Result.DENIED}
    assert [row.picks for row in up.pool.rows] == [4, 1]
    assert [row.failures for row in up.pool.rows] == [0, 0]
    assert up.pool.view(began).eligible.tolist() == [True, True]


async def test_what_envoy_refuses_itself_is_denied_and_was_not_unpicked(tmp_path: Path) -> None:
    async with model_servers(1) as [server], observed_envoy(tmp_path, server) as up:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(up.url.rpartition(":")[2]))
        writer.write(b"GET / HTTP/1.1\r\n\r\n")  # no host
        assert b"400" in await reader.readline()
        writer.close()
        [outcome] = await up.told()

    assert (outcome.result, outcome.served_by) == (Result.DENIED, "")
    assert up.outcomes.unpicked == 0


async def test_a_decision_that_comes_too_late_to_be_read_is_released_when_the_request_ends(tmp_path: Path) -> None:
    async def late(answer: auth.CheckResponse) -> auth.CheckResponse:
        await asyncio.sleep(1.5)  # Envoy waits for 1 s
        return answer

    async with model_servers(1) as [server], observed_envoy(tmp_path, server) as up:
        up.authorization.on_its_way = late
        request = asyncio.create_task(_post(up.url))
        await until(up.in_flight)
        assert await request == 200
        [outcome] = await up.told()

    assert (outcome.result, outcome.decision_id) == (Result.ANSWERED, "")
    assert up.outcomes.unpicked == 1


async def test_a_decision_whose_client_left_before_it_was_read_is_released(tmp_path: Path) -> None:
    decided = asyncio.Event()

    async def wait(answer: auth.CheckResponse) -> auth.CheckResponse:
        decided.set()
        await asyncio.sleep(0.5)
        return answer

    async with model_servers(1) as [server], observed_envoy(tmp_path, server) as up:
        up.authorization.on_its_way = wait
        request = asyncio.create_task(_post(up.url))
        await decided.wait()
        assert await up.in_flight() == 1
        request.cancel()
        [outcome] = await up.told()

    assert (outcome.result, outcome.decision_id, outcome.served_by) == (Result.ABORTED, "", "")
    assert up.outcomes.unpicked == 0


async def test_when_envoy_dies_nothing_stays_in_flight_where_no_report_can_tell(tmp_path: Path) -> None:
    async with model_servers(1) as [server], contextlib.AsyncExitStack() as stack:
        up = await stack.enter_async_context(observed_envoy(tmp_path, server))
        assert await _post(up.url) == 200  # the log stream is open
        await up.told()
        server.release.clear()
        requests = [asyncio.create_task(_post(up.url)) for _ in range(5)]

        async def all_there() -> bool:
            return server.arrived == 6 and await up.in_flight() == 5

        await until(all_there)
        await stack.aclose()  # ends Envoy, and with it the log
        await asyncio.gather(*requests, return_exceptions=True)

        async def none_in_flight() -> bool:
            return await up.in_flight() == 0

        await until(none_in_flight)


async def _post(url: str) -> int:
    async with aiohttp.request("POST", url, data=b"{}") as answer:
        return answer.status


async def _deny(answer: auth.CheckResponse) -> auth.CheckResponse:
    return auth.CheckResponse(
        status=status_pb2.Status(code=7),
        denied_response=auth.DeniedHttpResponse(status={"code": 429}, body="later"),
        dynamic_metadata=answer.dynamic_metadata,
    )


def prefer(up: ObservedEnvoy, name: str) -> None:
    """Report loads by which this endpoint is picked first."""
    now = time.monotonic()
    for endpoint in up.pool.endpoints:
        busy = 0 if endpoint.name == name else 10
        up.pool.report(endpoint.name, signals(queued=busy, running=busy, kv=0.0, at=now), started_at=now)


async def test_a_question_that_a_picker_reads_after_the_end_of_its_request_counts_nowhere(tmp_path: Path) -> None:
    async with model_servers(1) as [server], observed_envoy(tmp_path, server) as up:
        up.authorization.hangs = True
        async with aiohttp.request("POST", up.url, data=b"{}") as answer:
            assert answer.status == 200
        [outcome] = await up.told()
        assert outcome.decision_id == ""
        up.authorization.hangs = False

        await up.authorization.check(up.authorization.asked[0], None)
        assert await up.in_flight() == 0

        async with aiohttp.request("POST", up.url, data=b"{}") as answer:
            assert answer.status == 200
        assert [outcome.decision_id != "" for outcome in await up.told(2)] == [False, True]
