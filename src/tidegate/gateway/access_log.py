"""Where outcomes come from: Envoy's gRPC access log, in batches, off the request path.

Outcomes path: StreamAccessLogs → **Outcome** → Outcomes
"""

import re
from collections.abc import AsyncIterator, Callable

import grpc
from envoy.data.accesslog.v3 import accesslog_pb2 as accesslog
from envoy.service.accesslog.v3 import als_pb2 as als

from tidegate.gateway.names import AUTHZ_METADATA, DECISION_ID, ENVOY_STARTED_AT, TTFT_TAG, USAGE_TAGS
from tidegate.gateway.origin import address_of, origin_of
from tidegate.pool.outcomes import NO_USAGE, Outcome, Outcomes, Result, TokenUsage

SERVICE = "envoy.service.accesslog.v3.AccessLogService"

REQUEST_TIMEOUT_STATUS = 408
SERVER_ERROR_STATUS = 500

_COUNT = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?(e\+0?[0-9])?")


class AccessLogService:
    """Takes every entry of every stream that Envoy's workers open; a stream ends when Envoy does."""

    def __init__(self, outcomes: Outcomes, clock: Callable[[], float]) -> None:
        self._outcomes = outcomes
        self._clock = clock
        self._envoy_started_at = float("-inf")

    def handler(self) -> "grpc.GenericRpcHandler[als.StreamAccessLogsMessage, als.StreamAccessLogsResponse]":
        """Return what a gRPC server needs to serve this."""
        stream = grpc.stream_unary_rpc_method_handler(
            self.stream_access_logs,
            request_deserializer=als.StreamAccessLogsMessage.FromString,
            response_serializer=als.StreamAccessLogsResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"StreamAccessLogs": stream})

    async def stream_access_logs(
        self, messages: AsyncIterator[als.StreamAccessLogsMessage], context: object
    ) -> als.StreamAccessLogsResponse:
        """Take one worker's stream of batches. It ends when Envoy does, or breaks: then what it held back is lost."""
        try:
            async for message in messages:
                self._note_start(message)
                now = self._clock()
                for entry in message.http_logs.log_entry:
                    self._outcomes.take(parse_entry(entry), now)
        finally:
            self._outcomes.doubt(self._clock())
        return als.StreamAccessLogsResponse()

    def _note_start(self, message: als.StreamAccessLogsMessage) -> None:
        """Doubt what was sent before this Envoy started: one that died without an outcome had opened no stream."""
        fields = message.identifier.node.metadata.fields  # only in the first message of a stream
        if (
            ENVOY_STARTED_AT in fields
            and (started_at := fields[ENVOY_STARTED_AT].number_value) > self._envoy_started_at
        ):
            self._envoy_started_at = started_at
            self._outcomes.doubt(started_at)


def parse_entry(entry: accesslog.HTTPAccessLogEntry) -> Outcome:
    """Return what one log entry tells."""
    common = entry.common_properties
    served_by = address_of(common.upstream_remote_address)
    return Outcome(
        decision_id=_decision_id(common),
        origin=origin_of(common.downstream_remote_address, common.start_time),
        served_by=served_by,
        result=_result(common.response_flags, entry.response.response_code.value, served=bool(served_by)),
        attempts=common.upstream_request_attempt_count,
        ttft_s=_ttft_s(entry),
        usage=_usage(common),
    )


def _decision_id(common: accesslog.AccessLogCommon) -> str:
    metadata = common.metadata.filter_metadata
    if AUTHZ_METADATA not in metadata:  # asking for a missing key of a protobuf map would add it
        return ""
    fields = metadata[AUTHZ_METADATA].fields
    return str(fields[DECISION_ID].string_value) if DECISION_ID in fields else ""


def _result(flags: accesslog.ResponseFlags, status: int, *, served: bool) -> Result:
    """Return how it went. `served`: whether a server was tried; without one, the answer was Envoy's own."""
    if flags.HasField("unauthorized_details"):
        return Result.DENIED
    if flags.downstream_connection_termination or flags.downstream_remote_reset:
        return Result.ABORTED
    if flags.no_healthy_upstream or flags.upstream_connection_failure:
        return Result.UNSERVED
    if not served:
        return Result.DENIED
    if flags.downstream_protocol_error or (status in (0, REQUEST_TIMEOUT_STATUS) and _is_cut(flags)):
        return Result.ABORTED  # also by not sending on what it had begun to send
    if _is_cut(flags):
        return Result.BROKEN if status < SERVER_ERROR_STATUS else Result.UNSERVED
    return Result.SERVER_ERROR if status >= SERVER_ERROR_STATUS else Result.ANSWERED


def _is_cut(flags: accesslog.ResponseFlags) -> bool:
    """Return whether the request or its answer was cut off, by the server or by Envoy's patience with it."""
    by_server = flags.upstream_connection_termination or flags.upstream_remote_reset or flags.upstream_protocol_error
    by_envoy = (
        flags.stream_idle_timeout or flags.upstream_request_timeout or flags.duration_timeout or flags.local_reset
    )
    return bool(by_server or by_envoy)


def _ttft_s(entry: accesslog.HTTPAccessLogEntry) -> float | None:
    """Return the time to first token, where the answer is a stream: elsewhere the first byte is not a token."""
    if not entry.response.response_headers.get("content-type", "").startswith("text/event-stream"):
        return None
    microseconds = _count(entry.common_properties, TTFT_TAG)
    return None if microseconds is None else microseconds / 1e6


def _usage(common: accesslog.AccessLogCommon) -> TokenUsage:
    counts = {tag: _count(common, tag) for tag in USAGE_TAGS}
    return TokenUsage(**counts) if any(count is not None for count in counts.values()) else NO_USAGE


def _count(common: accesslog.AccessLogCommon, tag: str) -> int | None:
    """Return the value of a custom tag; None where it is missing or not a count ("-": Envoy knows none)."""
    text = common.custom_tags.get(tag, "")
    # Envoy writes a round million of tokens as 1e+06.
    return int(float(text)) if _COUNT.fullmatch(text) else None
