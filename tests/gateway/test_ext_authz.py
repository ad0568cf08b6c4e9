"""Envoy's question and our answer, over a real gRPC server; and what its log releases."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from envoy.service.accesslog.v3 import als_pb2 as als
from envoy.service.auth.v3 import external_auth_pb2 as auth
from hypothesis import given
from hypothesis import strategies as st

from factories import NOW, pool_of
from processes import until
from tidegate.gateway import access_log, ext_authz
from tidegate.gateway.access_log import AccessLogService
from tidegate.gateway.ext_authz import AuthorizationService, parse_check
from tidegate.gateway.names import AUTHZ_METADATA, DECISION_ID, DESTINATION
from tidegate.picker.director import Director
from tidegate.picker.profile import default_profile
from tidegate.pool.outcomes import Outcomes, Result
from tidegate.pool.table import Pool


def question(body: bytes = b"", *, path: str = "/v1/completions", length: str | None = None) -> auth.CheckRequest:
    asked = auth.CheckRequest()
    http = asked.attributes.request.http
    http.path = path
    http.raw_body = body
    if length is not None:
        http.headers["content-length"] = length
    return asked


class TestParseCheck:
    def test_the_declared_length_counts_because_the_body_may_be_cut(self) -> None:
        assert parse_check(question(b"x" * 10, length="70000")).body_bytes == 70_000

    def test_of_a_chunked_upload_what_arrived_counts(self) -> None:
        assert parse_check(question(b"x" * 10)).body_bytes == 10

    def test_a_declared_length_below_what_arrived_is_a_lie(self) -> None:
        assert parse_check(question(b"x" * 10, length="3")).body_bytes == 10

    @pytest.mark.parametrize(
        "length", ["", "-5", "+5", "1e3", "0x10", "1_000", " 70000", "70000,70000", "٣٣", "²", "9" * 16, "9" * 5000]
    )
    def test_a_length_that_is_no_sensible_number_is_passed_over(self, length: str) -> None:
        assert parse_check(question(b"x" * 10, length=length)).body_bytes == 10

    @pytest.mark.parametrize(
        ("path", "parsed"),
        [
            ("/v1/completions?x=1?y", "/v1/completions"),
            ("/v1/completions", "/v1/completions"),
            ("?", ""),
            ("", ""),
            ("*", "*"),
        ],
    )
    def test_the_path_is_without_its_query(self, path: str, parsed: str) -> None:
        assert parse_check(question(path=path)).path == parsed

    @given(st.text(), st.text(), st.binary())
    def test_any_headers_and_body_parse(self, path: str, length: str, body: bytes) -> None:
        parsed = parse_check(question(body, path=path, length=length))

        assert len(body) <= parsed.body_bytes < max(10**15, len(body) + 1)

    def test_a_question_without_anything_parses(self) -> None:
        assert parse_check(auth.CheckRequest()).body_bytes == 0


class Gateway:
    """Both services on a socket, and a client of each."""

    def __init__(self, pool: Pool, channel: grpc.aio.Channel, address: str) -> None:
        self.pool = pool
        self.outcomes = Outcomes(pool)
        self.address = address
        self.check: Callable[..., grpc.aio.UnaryUnaryCall[auth.CheckRequest, auth.CheckResponse]] = channel.unary_unary(
            f"/{ext_authz.SERVICE}/Check",
            request_serializer=auth.CheckRequest.SerializeToString,
            response_deserializer=auth.CheckResponse.FromString,
        )
        self.log: Callable[..., grpc.aio.StreamUnaryCall[object, object]] = channel.stream_unary(
            f"/{access_log.SERVICE}/StreamAccessLogs",
            request_serializer=als.StreamAccessLogsMessage.SerializeToString,
            response_deserializer=als.StreamAccessLogsResponse.FromString,
        )

    @property
    def in_flight(self) -> list[int]:
        return [row.in_flight for row in self.pool.rows]


@contextlib.asynccontextmanager
async def serving(pool: Pool, directory: Path) -> AsyncIterator[Gateway]:
    director = Director(
        pool, default_profile(), destinations=2, tracked=True, rng=np.random.default_rng(1), id_prefix="ours-"
    )
    address = f"unix:{directory}/picker.sock"
    server = grpc.aio.server()
    assert server.add_insecure_port(address)
    async with grpc.aio.insecure_channel(address) as channel:
        gateway = Gateway(pool, channel, address)
        server.add_generic_rpc_handlers(
            [
                AuthorizationService(director, lambda: NOW).handler(),
                AccessLogService(gateway.outcomes, lambda: NOW).handler(),
            ]
        )
        await server.start()
        try:
            yield gateway
        finally:
            await server.stop(0)


def ended(answer: auth.CheckResponse, served_by: str) -> als.StreamAccessLogsMessage:
    """Return the log of the request that got this answer, as Envoy writes it: our metadata comes back as it is."""
    message = als.StreamAccessLogsMessage()
    entry = message.http_logs.log_entry.add()
    entry.response.response_code.value = 200
    common = entry.common_properties
    common.metadata.filter_metadata[AUTHZ_METADATA].CopyFrom(answer.dynamic_metadata)
    ip, _, port = served_by.rpartition(":")
    common.upstream_remote_address.socket_address.address = ip
    common.upstream_remote_address.socket_address.port_value = int(port)
    return message


class TestService:
    async def test_the_pick_and_a_fallback_travel_in_the_metadata_and_nothing_in_headers(self, tmp_path: Path) -> None:
        async with serving(pool_of(queued=[9, 0, 5]), tmp_path) as gateway:
            answer = await gateway.check(question(), timeout=5)

        assert dict(answer.dynamic_metadata)[DESTINATION] == "10.0.0.1:8000,10.0.0.2:8000"
        assert answer.WhichOneof("http_response") == "ok_response"
        assert answer.ok_response == auth.OkHttpResponse()
        assert answer.status.code == 0
        assert gateway.in_flight == [0, 1, 0]

    async def test_every_decision_has_an_id_of_its_own(self, tmp_path: Path) -> None:
        async with serving(pool_of(queued=[0, 0]), tmp_path) as gateway:
            answers = await asyncio.gather(*(gateway.check(question(), timeout=5) for _ in range(20)))

        assert len({dict(answer.dynamic_metadata)[DECISION_ID] for answer in answers}) == 20

    @pytest.mark.parametrize("endpoints", [0, 2])
    async def test_without_an_eligible_endpoint_the_answer_is_ok_with_no_metadata(
        self, tmp_path: Path, endpoints: int
    ) -> None:
        pool = pool_of(queued=[0] * endpoints)
        for number in range(endpoints):
            pool.miss(f"e{number}", error="refused", reachable=False, now=NOW)
        async with serving(pool, tmp_path) as gateway:
            answer = await gateway.check(question(), timeout=5)

        assert answer.WhichOneof("http_response") == "ok_response"
        assert not answer.HasField("dynamic_metadata")
        assert gateway.in_flight == [0] * endpoints


class TestOutcomes:
    async def test_a_logged_end_releases_the_request_while_the_stream_stays_open(self, tmp_path: Path) -> None:
        async with serving(pool_of(queued=[0, 5]), tmp_path) as gateway:
            first, second = [await gateway.check(question(), timeout=5) for _ in range(2)]
            assert gateway.in_flight == [2, 0]
            stream = gateway.log(timeout=10)

            await stream.write(ended(first, "10.0.0.0:8000"))
            await until(functools.partial(_in_flight, gateway, [1, 0]))
            await stream.write(ended(first, "10.0.0.0:8000"))
            await stream.write(ended(second, "10.0.0.1:8000"))
            await until(functools.partial(_in_flight, gateway, [0, 0]))
            await stream.done_writing()
            await stream

        assert gateway.outcomes.counts == {("e0", Result.ANSWERED): 2, ("e1", Result.ANSWERED): 1}
        assert gateway.outcomes.unpicked == 0

    async def test_a_stream_that_breaks_off_keeps_what_it_told(self, tmp_path: Path) -> None:
        async with serving(pool_of(queued=[0]), tmp_path) as gateway:
            answers = [await gateway.check(question(), timeout=5) for _ in range(2)]
            for left, answer in zip((1, 0), answers, strict=True):
                stream = gateway.log(timeout=10)
                await stream.write(ended(answer, "10.0.0.0:8000"))
                await until(functools.partial(_in_flight, gateway, [left]))
                stream.cancel()

        assert gateway.in_flight == [0]


async def _in_flight(gateway: Gateway, expected: list[int]) -> bool:
    return gateway.in_flight == expected
