"""The Endpoint Picker protocol in raw streams to a running `tidegate picker`."""

import asyncio
import functools
import json
from pathlib import Path

import grpc
import grpc.aio
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pickers import (
    PICK,
    SERVICE,
    Mode,
    allowing,
    body,
    header_pick,
    headers,
    metadata_pick,
    open_stream,
    picker,
    refusal,
    response_body,
    response_headers,
    response_trailers,
    trailers,
)
from processes import until
from servers import model_servers

CHAT = json.dumps({"messages": [{"role": "user", "content": "tide " * 50}], "model": "m"}).encode()
NO_MODEL = b"inference error: BadRequest - model not found in request body"
NO_ENDPOINTS = b"inference error: ServiceUnavailable - failed to find endpoint candidates for serving the request"


def given_back(answers: list[ext_proc.ProcessingResponse]) -> list[ext_proc.StreamedBodyResponse]:
    """Return the parts of the body that the gateway gets back."""
    return [answer.request_body.response.body_mutation.streamed_response for answer in answers]


async def test_headers_alone_are_answered_with_the_pick_in_header_and_metadata(tmp_path: Path) -> None:
    async with model_servers(2) as (busy, idle):
        busy.queued = 9
        async with picker(tmp_path / "pool.yaml", busy.address, idle.address) as running:
            await running.shows(busy.address, queued_requests=9)
            answers = [await running.ask([headers(path="/v1/models", ends=True)], half_close=False)]
            answers.append(await running.ask([headers(mode=Mode.NONE, content_length="500")], half_close=False))

    for [answer] in answers:
        assert header_pick(answer) == metadata_pick(answer) == idle.address


async def test_full_duplex_gives_nothing_back_before_the_body_ends_then_headers_then_the_same_bytes(
    tmp_path: Path,
) -> None:
    parts = [CHAT[:100], CHAT[100:101], b"", CHAT[101:]]
    async with (
        model_servers(1) as [server],
        picker(tmp_path / "pool.yaml", server.address) as running,
        grpc.aio.insecure_channel(running.grpc) as channel,
    ):
        call = open_stream(channel)
        for message in [headers(), *(body(part, ends=False) for part in parts)]:
            await call.write(message)
        first = asyncio.ensure_future(call.read())
        # Whatever had been answered so far would come before the answer to another stream.
        await running.ask([headers(ends=True)])
        assert not first.done()
        await call.write(body(b"", ends=True))
        answers = [await first]
        while (answer := await call.read()) is not grpc.aio.EOF:
            answers.append(answer)

    assert header_pick(answers[0]) == metadata_pick(answers[0]) == server.address
    assert answers[0].request_headers.response.clear_route_cache
    lengths = [o for o in answers[0].request_headers.response.header_mutation.set_headers if o.header.key != PICK]
    assert [(o.header.key, o.header.raw_value) for o in lengths] == [("content-length", b"%d" % len(CHAT))]
    back = given_back(answers[1:])
    assert b"".join(part.body for part in back) == CHAT
    assert [part.end_of_stream for part in back] == [False] * (len(back) - 1) + [True]
    assert not any(answer.HasField("dynamic_metadata") for answer in answers[1:])


async def test_a_body_comes_back_in_parts_of_at_most_62_000_bytes(tmp_path: Path) -> None:
    async with model_servers(1) as [server], picker(tmp_path / "pool.yaml", server.address) as running:
        for size in (1, 61_999, 62_000, 62_001, 124_000, 3_000_000):
            content = bytes(range(256)) * (size // 256) + bytes(size % 256)
            answers = await running.ask([headers(path="/infer"), body(content)], half_close=False)

            back = given_back(answers[1:])
            assert b"".join(part.body for part in back) == content
            assert max(len(part.body) for part in back) <= 62_000
            assert [part.end_of_stream for part in back] == [False] * (len(back) - 1) + [True]


async def test_a_body_that_goes_back_in_one_part_closes_the_stream_though_the_response_would_be_shown(
    tmp_path: Path,
) -> None:
    async with model_servers(1) as [server], picker(tmp_path / "pool.yaml", server.address) as running:
        messages = [headers(path="/infer", response_mode=Mode.FULL_DUPLEX_STREAMED), body(b"x" * 62_000)]
        answers = await running.ask(messages, half_close=False)

    assert [answer.WhichOneof("response") for answer in answers] == ["request_headers", "request_body"]


async def test_after_a_body_in_several_parts_the_response_goes_back_as_it_came_until_it_ends(tmp_path: Path) -> None:
    parts = [b"data: 1\n\n", b"", b"y" * 130_000]
    ways = [
        [response_headers(), *(response_body(part, ends=False) for part in parts), response_body(b"", ends=True)],
        [response_headers(), *(response_body(part, ends=False) for part in parts), response_trailers()],
        [response_headers(ends=True)],
    ]
    async with model_servers(1) as [server], picker(tmp_path / "pool.yaml", server.address) as running:
        for response in ways:
            request = [headers(path="/infer", response_mode=Mode.FULL_DUPLEX_STREAMED), body(b"x" * 62_001)]
            answers = await running.ask([*request, *response], half_close=False)

            assert header_pick(answers[0]) == server.address
            back = [answer for answer in answers if answer.HasField("response_body")]
            chunks = [answer.response_body.response.body_mutation.streamed_response for answer in back]
            assert b"".join(chunk.body for chunk in chunks) == (b"".join(parts) if len(response) > 1 else b"")
            assert all(len(chunk.body) <= 62_000 for chunk in chunks)
            assert sum(chunk.end_of_stream for chunk in chunks) == (response is ways[0])
            kinds = [answer.WhichOneof("response") for answer in answers[3:] if answer not in back]
            assert kinds == ["response_headers", *(["response_trailers"] if response is ways[1] else [])]


async def test_trailers_without_a_body_are_answered_without_one(tmp_path: Path) -> None:
    async with model_servers(1) as [server], picker(tmp_path / "pool.yaml", server.address) as running:
        answers = await running.ask([headers(path="/infer"), trailers()], half_close=False)

    assert [answer.WhichOneof("response") for answer in answers] == ["request_headers", "request_trailers"]
    assert header_pick(answers[0]) == server.address


async def test_a_body_that_comes_byte_by_byte_goes_back_in_large_parts(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20
    async with model_servers(1) as [server], picker(tmp_path / "pool.yaml", server.address) as running:
        bytewise = [body(content[index : index + 1], ends=False) for index in range(len(content))]
        answers = await running.ask([headers(path="/infer"), *bytewise, body(b"")], half_close=False)

    assert [(part.body, part.end_of_stream) for part in given_back(answers[1:])] == [(content, True)]


async def test_a_body_that_ends_with_trailers_comes_back_before_them(tmp_path: Path) -> None:
    async with model_servers(1) as [server], picker(tmp_path / "pool.yaml", server.address) as running:
        answers = await running.ask([headers(), body(CHAT, ends=False), trailers()], half_close=False)

    kinds = [answer.WhichOneof("response") for answer in answers]
    assert kinds == ["request_headers", "request_body", "request_trailers"]
    assert [(part.body, part.end_of_stream) for part in given_back(answers[1:2])] == [(CHAT, False)]


async def test_a_buffered_body_is_picked_for_with_its_headers_let_through_before(tmp_path: Path) -> None:
    async with model_servers(1) as [server], picker(tmp_path / "pool.yaml", server.address) as running:
        first, second = await running.ask([headers(mode=Mode.BUFFERED), body(CHAT)], half_close=False)

    assert first == ext_proc.ProcessingResponse(request_headers=ext_proc.HeadersResponse())
    assert header_pick(second) == metadata_pick(second) == server.address
    assert second.request_body.response.clear_route_cache
    assert not second.request_body.response.HasField("body_mutation")


async def test_only_allowed_endpoints_are_picked_and_the_last_message_that_names_them_counts(tmp_path: Path) -> None:
    async with model_servers(3) as servers:
        idle, busy, _ = servers
        busy.queued = 50
        async with picker(tmp_path / "pool.yaml", *(server.address for server in servers)) as running:
            await running.shows(busy.address, queued_requests=50)
            for subset in ([busy.address], [busy.address, "10.9.9.9:8000"], [f" {busy.address} "]):
                messages = [allowing(headers(), [idle.address]), allowing(body(CHAT), subset)]
                answer, *_ = await running.ask(messages)
                assert header_pick(answer) == busy.address
            answer, *_ = await running.ask([allowing(headers(), [busy.address]), body(CHAT)])
            assert header_pick(answer) == busy.address
            answer, *_ = await running.ask([allowing(headers(ends=True), ["127.0.0.1"])])
            assert header_pick(answer) in {server.address for server in servers} - {busy.address}


async def test_an_empty_subset_or_one_of_strangers_is_answered_503(tmp_path: Path) -> None:
    async with model_servers(1) as [server], picker(tmp_path / "pool.yaml", server.address) as running:
        subsets: list[list[str]] = [[], ["10.9.9.9:8000"], ["127.0.0.1:1"], ["nonsense"], [""]]
        for subset in subsets:
            early, late = [allowing(headers(ends=True), subset)], [headers(), allowing(body(CHAT), subset)]
            for messages in (early, late):
                status, reason, content = refusal(await running.ask(messages, half_close=False))
                assert (status, reason) == (503, "rejected-no-endpoints")
                assert NO_ENDPOINTS in content


async def test_without_endpoints_a_request_gets_503_with_the_reason(tmp_path: Path) -> None:
    async with picker(tmp_path / "pool.yaml") as running:
        for messages in ([headers(ends=True)], [headers(), body(CHAT)]):
            status, reason, content = refusal(await running.ask(messages, half_close=False))

            assert (status, reason) == (503, "rejected-no-endpoints")
            assert json.loads(content)["error"] == {
                "message": NO_ENDPOINTS.decode(),
                "type": "service_unavailable",
                "param": None,
                "code": "rejected-no-endpoints",
            }


async def test_a_body_that_names_no_model_gets_400_unless_its_path_does(tmp_path: Path) -> None:
    nameless = [b"", b"{}", b"[]", b"tide", b'{"model": ""}', b'{"model": 7}', b'{"model": null}', b'{"model": "m"']
    nameless += [b"\xff", b"[" * 9999]
    async with model_servers(1) as [server], picker(tmp_path / "pool.yaml", server.address) as running:
        for content in nameless:
            [whole] = await running.ask([headers(), body(content)], half_close=False)
            _, buffered = await running.ask([headers(mode=Mode.BUFFERED), body(content)], half_close=False)
            for answer in (whole, buffered):
                status, reason, said = refusal([answer])
                assert (status, reason) == (400, "")
                assert NO_MODEL in said
            answer, *_ = await running.ask([headers(path="/v2/models/m/generate"), body(content)])
            assert header_pick(answer) == server.address


async def test_a_body_beyond_the_limit_gets_413_and_no_more_of_it_is_kept(tmp_path: Path) -> None:
    async with model_servers(1) as [server], picker(tmp_path / "pool.yaml", server.address) as running:
        parts = [body(b"x" * 2**20, ends=False) for _ in range(11)]
        status, _, content = refusal(await running.ask([headers(), *parts], half_close=False))

    assert status == 413
    assert b"exceeds 10485760 bytes" in content


async def test_messages_out_of_order_end_the_stream_and_nothing_else(tmp_path: Path) -> None:
    disorders = [
        [body(CHAT)],
        [trailers()],
        [ext_proc.ProcessingRequest()],
        [ext_proc.ProcessingRequest(response_headers=ext_proc.HttpHeaders())],
        [headers(), headers()],
        [headers(mode=Mode.BUFFERED), trailers()],
    ]
    async with model_servers(1) as [server], picker(tmp_path / "pool.yaml", server.address) as running:
        for messages in disorders:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await running.ask(messages, half_close=False)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

            answer, *_ = await running.ask([headers(), body(CHAT)])
            assert header_pick(answer) == server.address


async def test_streams_that_end_before_their_request_does_count_nothing(tmp_path: Path) -> None:
    async with (
        model_servers(1) as [server],
        picker(tmp_path / "pool.yaml", server.address) as running,
        grpc.aio.insecure_channel(running.grpc) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.ask([headers(), body(CHAT, ends=False)])
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        for _ in range(20):
            call = open_stream(channel)
            await call.write(headers())
            await call.write(body(CHAT, ends=False))
            call.cancel()
        await running.ask([headers(), body(CHAT)])

        assert (await running.endpoint(server.address))["picks"] == 1


async def test_requests_whose_end_nobody_tells_stop_counting_when_a_report_has_seen_them(tmp_path: Path) -> None:
    async with model_servers(1) as [server], picker(tmp_path / "pool.yaml", server.address) as running:
        await asyncio.gather(*(running.ask([headers(), body(CHAT)]) for _ in range(50)))

        pool = await running.drained()

    assert pool["endpoints"][server.address]["picks"] == 50


async def test_health_checks_tell_liveness_and_readiness_on_both_ports(tmp_path: Path) -> None:
    async with picker(tmp_path / "pool.yaml") as running:
        for address in (running.grpc, running.health):
            for service in ("", "liveness", "readiness", SERVICE):
                await until(functools.partial(serves, address, service))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await serves(address, "tea")
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def serves(address: str, service: str) -> bool:
    """Ask one health check."""
    async with grpc.aio.insecure_channel(address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=5)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_a_picker_that_is_told_to_stop_ends_well_with_streams_open(tmp_path: Path) -> None:
    async with (
        picker(tmp_path / "pool.yaml") as running,
        grpc.aio.insecure_channel(running.grpc) as channel,
    ):
        call = open_stream(channel)
        await call.write(headers())
        running.process.terminate()
        assert await running.end(within_s=10) == 0
        assert not [line for line in running.lines if "Traceback" in line]
