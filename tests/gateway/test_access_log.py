"""What Envoy's access log entries tell: which request ended, who served it, and how it went."""

import pytest
from envoy.config.core.v3 import address_pb2
from envoy.data.accesslog.v3 import accesslog_pb2 as accesslog
from envoy.service.accesslog.v3 import als_pb2 as als
from google.protobuf import wrappers_pb2
from hypothesis import given
from hypothesis import strategies as st

from factories import NOW, endpoints
from tidegate.gateway.access_log import AccessLogService, parse_entry
from tidegate.gateway.names import AUTHZ_METADATA, DECISION_ID, ENVOY_STARTED_AT
from tidegate.pool.outcomes import Outcome, Outcomes, Result
from tidegate.pool.table import Pool

DENIED = accesslog.ResponseFlags(unauthorized_details=accesslog.ResponseFlags.Unauthorized())


def entry(
    *,
    status: int = 200,
    ip: str = "10.0.0.1",
    decision: object = "ours-1",
    namespace: str = AUTHZ_METADATA,
    flags: accesslog.ResponseFlags | None = None,
    **flag: bool,
) -> accesslog.HTTPAccessLogEntry:
    """Return a log entry as Envoy writes it: `flag` names response flags, `decision` is our id in the metadata."""
    made = accesslog.HTTPAccessLogEntry(
        common_properties=accesslog.AccessLogCommon(response_flags=flags or accesslog.ResponseFlags(**flag)),
        response=accesslog.HTTPResponseProperties(response_code=wrappers_pb2.UInt32Value(value=status)),
    )
    if ip:
        address = address_pb2.SocketAddress(address=ip, port_value=8000)
        made.common_properties.upstream_remote_address.socket_address.CopyFrom(address)
    if decision is not None:
        made.common_properties.metadata.filter_metadata[namespace].update({DECISION_ID: decision})
    return made


class TestResult:
    @pytest.mark.parametrize("status", [200, 204, 302, 400, 404, 429, 499])
    def test_an_answer_is_an_answer_even_when_it_blames_the_client(self, status: int) -> None:
        assert parse_entry(entry(status=status)).result is Result.ANSWERED

    @pytest.mark.parametrize("status", [500, 501, 503, 599])
    @pytest.mark.parametrize("retried", [True, False])
    def test_a_servers_own_5xx_is_a_server_error(self, status: int, retried: bool) -> None:
        failed = entry(status=status, upstream_retry_limit_exceeded=retried)
        assert parse_entry(failed).result is Result.SERVER_ERROR

    @pytest.mark.parametrize(
        "flag", ["stream_idle_timeout", "upstream_request_timeout", "duration_timeout", "local_reset"]
    )
    @pytest.mark.parametrize(
        ("status", "result"),
        [(200, Result.BROKEN), (504, Result.UNSERVED), (408, Result.ABORTED), (0, Result.ABORTED)],
    )
    def test_what_envoys_patience_cuts_off_is_no_answer(self, flag: str, status: int, result: Result) -> None:
        assert parse_entry(entry(status=status, **{flag: True})).result is result

    @pytest.mark.parametrize("status", [400, 404, 413, 426, 431])
    def test_what_envoy_answered_itself_is_denied(self, status: int) -> None:
        assert parse_entry(entry(status=status, ip="", decision=None)).result is Result.DENIED
        malformed = entry(status=status, ip="", decision=None, downstream_protocol_error=True)
        assert parse_entry(malformed).result is Result.DENIED

    @pytest.mark.parametrize(
        "flag", ["upstream_connection_termination", "upstream_remote_reset", "upstream_protocol_error"]
    )
    def test_a_server_that_fails_after_its_headers_has_broken_its_answer(self, flag: str) -> None:
        assert parse_entry(entry(status=200, **{flag: True})).result is Result.BROKEN
        assert parse_entry(entry(status=503, **{flag: True})).result is Result.UNSERVED

    @pytest.mark.parametrize("flag", ["no_healthy_upstream", "upstream_connection_failure"])
    def test_what_no_server_could_answer_is_unserved(self, flag: str) -> None:
        assert parse_entry(entry(status=503, **{flag: True})).result is Result.UNSERVED

    @pytest.mark.parametrize("flag", ["downstream_connection_termination", "downstream_remote_reset"])
    @pytest.mark.parametrize("status", [0, 200, 503])
    def test_a_client_that_leaves_has_aborted_whatever_the_status(self, flag: str, status: int) -> None:
        assert parse_entry(entry(status=status, **{flag: True})).result is Result.ABORTED

    def test_a_client_that_leaves_as_its_server_dies_has_aborted(self) -> None:
        left = entry(downstream_connection_termination=True, upstream_connection_termination=True)

        assert parse_entry(left).result is Result.ABORTED

    @pytest.mark.parametrize("status", [0, 403, 429, 503])
    def test_what_the_gateway_refused_is_denied(self, status: int) -> None:
        assert parse_entry(entry(status=status, flags=DENIED)).result is Result.DENIED


class TestServedBy:
    @pytest.mark.parametrize(
        ("ip", "served_by"), [("10.0.0.1", "10.0.0.1:8000"), ("fd00::1", "[fd00::1]:8000"), ("", "")]
    )
    def test_the_address_is_written_as_the_pool_writes_it(self, ip: str, served_by: str) -> None:
        assert parse_entry(entry(ip=ip)).served_by == served_by

    def test_a_server_behind_a_socket_file_has_no_address(self) -> None:
        piped = entry(ip="")
        piped.common_properties.upstream_remote_address.pipe.path = "/tmp/x"

        assert parse_entry(piped).served_by == ""


class TestDecision:
    def test_our_id_comes_back_in_the_metadata(self) -> None:
        assert parse_entry(entry(decision="ours-1")).decision_id == "ours-1"

    @pytest.mark.parametrize("decision", [None, 7, True, {"id": "x"}, ["ours-1"]])
    def test_without_an_id_that_is_text_there_is_none(self, decision: object) -> None:
        assert parse_entry(entry(decision=decision)).decision_id == ""

    def test_an_id_in_the_metadata_of_another_filter_is_not_ours(self) -> None:
        assert parse_entry(entry(namespace="envoy.lb")).decision_id == ""

    def test_metadata_of_ours_without_the_id_has_none(self) -> None:
        other = entry(decision=None)
        other.common_properties.metadata.filter_metadata[AUTHZ_METADATA].update({"other": "x"})

        assert parse_entry(other).decision_id == ""

    def test_reading_an_entry_does_not_change_it(self) -> None:
        for read in (entry(), entry(decision=None), entry(ip=""), accesslog.HTTPAccessLogEntry()):
            before = read.SerializeToString(deterministic=True)
            parse_entry(read)
            assert read.SerializeToString(deterministic=True) == before

    def test_an_empty_entry_tells_of_an_unknown_request(self) -> None:
        assert parse_entry(accesslog.HTTPAccessLogEntry()) == Outcome(
            decision_id="", origin=("", 0, 0), served_by="", result=Result.DENIED
        )

    @given(st.binary(max_size=200))
    def test_whatever_a_message_holds_is_an_outcome(self, content: bytes) -> None:
        made = entry()
        try:
            made.MergeFromString(content)
        except Exception:
            return

        assert isinstance(parse_entry(made), Outcome)


class TestTags:
    @pytest.mark.parametrize(
        ("text", "count"),
        [
            ("0", 0), ("7", 7), ("1234567", 1_234_567), ("1e+06", 1_000_000), ("1.5e+06", 1_500_000), ("3.0", 3),
            ("-", None), ("", None), ("-5", None), ("1e-3", None), ("1e+99", None), ("nan", None), ("9" * 16, None),
            ("٣", None),
        ],
    )  # fmt: skip
    def test_counts_are_read_as_envoy_writes_them_and_nothing_else_is(self, text: str, count: int | None) -> None:
        tagged = entry()
        tagged.common_properties.custom_tags["completion_tokens"] = text

        assert parse_entry(tagged).usage.completion_tokens == count

    def test_only_a_stream_has_a_time_to_first_token(self) -> None:
        tagged = entry()
        tagged.common_properties.custom_tags["ttft_us"] = "12345"
        plain = parse_entry(tagged).ttft_s
        tagged.response.response_headers["content-type"] = "text/event-stream; charset=utf-8"

        assert plain is None
        assert parse_entry(tagged).ttft_s == 0.012345


async def test_every_entry_of_every_batch_is_taken() -> None:
    pool = Pool(stale_after_s=1)
    pool.set_endpoints(endpoints(1))
    for number in range(4):
        pool.dispatch(0, f"ours-{number}", now=NOW, prompt_tokens=0)
    outcomes = Outcomes(pool)
    service = AccessLogService(outcomes, lambda: NOW)

    async def batches() -> object:
        yield als.StreamAccessLogsMessage()
        for first in (0, 2):
            message = als.StreamAccessLogsMessage()
            message.http_logs.log_entry.extend(entry(decision=f"ours-{first + n}", ip="10.0.0.0") for n in range(2))
            yield message

    await service.stream_access_logs(batches(), None)  # type: ignore[arg-type]

    assert outcomes.counts == {("e0", Result.ANSWERED): 4}
    assert (pool.rows[0].in_flight, outcomes.unpicked) == (0, 0)


async def test_a_new_envoy_puts_what_was_sent_before_its_start_in_doubt_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(stale_after_s=1)
    pool.set_endpoints(endpoints(1))
    outcomes = Outcomes(pool)
    service = AccessLogService(outcomes, lambda: NOW + 100)
    doubts: list[float] = []
    monkeypatch.setattr(outcomes, "doubt", doubts.append)

    for started_at in (NOW, NOW, NOW + 50, NOW):
        message = als.StreamAccessLogsMessage()
        message.identifier.node.metadata.update({ENVOY_STARTED_AT: started_at})

        async def batches(first: als.StreamAccessLogsMessage = message) -> object:
            yield first
            yield als.StreamAccessLogsMessage()

        await service.stream_access_logs(batches(), None)  # type: ignore[arg-type]

    ended = NOW + 100  # each stream's end is a doubt of its own
    assert doubts == [NOW, ended, ended, NOW + 50, ended, ended]
