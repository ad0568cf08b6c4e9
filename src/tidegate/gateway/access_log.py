"""Where outcomes come from: Envoy's gRPC access log, in batches, off the request path.

Outcomes path: StreamAccessLogs → **Outcome** → Outcomes
"""

from collections.abc import AsyncIterator, Callable

import grpc
from envoy.config.core.v3 import address_pb2
from envoy.data.accesslog.v3 import accesslog_pb2 as accesslog
from envoy.service.accesslog.v3 import als_pb2 as als

from tidegate.gateway.names import AUTHZ_METADATA, DECISION_ID
from tidegate.pool.outcomes import Outcome, Outcomes, Result

SERVICE = "envoy.service.accesslog.v3.AccessLogService"


class AccessLogService:
    """Takes every entry of every stream that Envoy's workers open; a stream ends when Envoy does."""

    def __init__(self, outcomes: Outcomes, clock: Callable[[], float]) -> None:
        self._outcomes = outcomes
        self._clock = clock

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
        """Take one worker's stream of batches."""
        async for message in messages:
            now = self._clock()
            for entry in message.http_logs.log_entry:
                self._outcomes.take(parse_entry(entry), now)
        return als.StreamAccessLogsResponse()


def parse_entry(entry: accesslog.HTTPAccessLogEntry) -> Outcome:
    """Return what one log entry tells."""
    common = entry.common_properties
    return Outcome(
        decision_id=_decision_id(common),
        served_by=_address(common.upstream_remote_address),
        result=_result(common.response_flags, entry.response.response_code.value),
    )


def _decision_id(common: accesslog.AccessLogCommon) -> str:
    metadata = common.metadata.filter_metadata
    if AUTHZ_METADATA not in metadata:  # asking for a missing key of a protobuf map would add it
        return ""
    fields = metadata[AUTHZ_METADATA].fields
    return str(fields[DECISION_ID].string_value) if DECISION_ID in fields else ""


def _address(address: address_pb2.Address) -> str:
    socket = address.socket_address
    if not socket.address:
        return ""
    return (
        f"[{socket.address}]:{socket.port_value}" if ":" in socket.address else f"{socket.address}:{socket.port_value}"
    )


def _result(flags: accesslog.ResponseFlags, status: int) -> Result:
    if flags.HasField("unauthorized_details"):
        return Result.DENIED
    if flags.downstream_connection_termination or flags.downstream_remote_reset:
        return Result.ABORTED
    died = flags.upstream_connection_termination or flags.upstream_remote_reset or flags.upstream_protocol_error
    if died and status < 500:
        return Result.BROKEN
    if died or flags.no_healthy_upstream or flags.upstream_connection_failure or flags.upstream_retry_limit_exceeded:
        return Result.UNSERVED
    return Result.SERVER_ERROR if status >= 500 else Result.ANSWERED
