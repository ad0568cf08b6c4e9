"""The messages of ext_proc as the Endpoint Picker protocol wants them: read, and made.

Request path: a gateway's messages → RequestPhase → **answers**
"""

import ipaddress
from collections.abc import Iterator

from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from envoy.type.v3 import http_status_pb2
from google.protobuf import struct_pb2

from tidegate.gateway.names import DESTINATION, DROP_REASON, LB_METADATA, SUBSET, SUBSET_NAMESPACE
from tidegate.gateway.rejections import render_error
from tidegate.picker.director import Decision
from tidegate.protocol.errors import RequestRejected

MAX_CHUNK_BYTES = 62_000
"""Of a body sent back; Envoy's messages hold 64 KiB. Source: GIE proposal 004."""


def read_header(headers: ext_proc.HttpHeaders, key: str) -> str:
    """Return a request header's value, which Envoy sends as bytes, and older versions as text; empty: there is none."""
    for header in headers.headers.headers:
        if header.key == key:
            return header.raw_value.decode(errors="replace") if header.raw_value else str(header.value)
    return ""


def read_subset(message: ext_proc.ProcessingRequest) -> tuple[str, ...] | None:
    """Return the endpoints that the gateway allows, as the pool writes addresses; None: the message says nothing."""
    namespaces = message.metadata_context.filter_metadata
    if SUBSET_NAMESPACE not in namespaces or SUBSET not in (fields := namespaces[SUBSET_NAMESPACE].fields):
        return None
    hint = fields[SUBSET]
    # Some gateways join the list to one string.
    listed = [value.string_value for value in hint.list_value.values] or hint.string_value.split(",")
    return tuple(_as_the_pool_writes_it(entry) for entry in map(str.strip, listed) if entry)


def redirect(decision: Decision, *, content_length: int | None = None) -> ext_proc.CommonResponse:
    """Return what sends a request to the pick."""
    headers = {DESTINATION: ",".join(decision.destinations)}
    if content_length is not None:
        headers["content-length"] = str(content_length)
    return ext_proc.CommonResponse(
        clear_route_cache=True, header_mutation=ext_proc.HeaderMutation(set_headers=_options(headers))
    )


def metadata(decision: Decision) -> struct_pb2.Struct:
    """Return the pick as dynamic metadata, for gateways that look for it there."""
    pick = struct_pb2.Struct(fields={DESTINATION: struct_pb2.Value(string_value=",".join(decision.destinations))})
    return struct_pb2.Struct(fields={LB_METADATA: struct_pb2.Value(struct_value=pick)})


def streamed(body: bytes | bytearray, *, ends: bool) -> Iterator[ext_proc.CommonResponse]:
    """Yield a body, byte for byte, in parts that Envoy takes, at least one; the last one ends it if `ends`."""
    for start in range(0, max(1, len(body)), MAX_CHUNK_BYTES):
        part = bytes(body[start : start + MAX_CHUNK_BYTES])
        is_last = start + MAX_CHUNK_BYTES >= len(body)
        response = ext_proc.StreamedBodyResponse(body=part, end_of_stream=ends and is_last)
        yield ext_proc.CommonResponse(body_mutation=ext_proc.BodyMutation(streamed_response=response))


def refuse(rejected: RequestRejected) -> ext_proc.ProcessingResponse:
    """Return the answer to the client in the place of a server's."""
    headers = {"content-type": "application/json"} | ({DROP_REASON: rejected.reason} if rejected.reason else {})
    return ext_proc.ProcessingResponse(
        immediate_response=ext_proc.ImmediateResponse(
            status=http_status_pb2.HttpStatus(code=rejected.status),
            headers=ext_proc.HeaderMutation(set_headers=_options(headers)),
            body=render_error(rejected),
            details=rejected.reason or "rejected",
        )
    )


def _options(headers: dict[str, str]) -> list[base_pb2.HeaderValueOption]:
    # raw_value alone: Envoy refuses a header that sets both it and value.
    return [
        base_pb2.HeaderValueOption(
            header=base_pb2.HeaderValue(key=key, raw_value=value.encode()),
            append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
        )
        for key, value in headers.items()
    ]


def _as_the_pool_writes_it(entry: str) -> str:
    """Return `ip:port` or `ip` with an IPv6 address in brackets and in its short form."""
    if entry.count(":") < 2:  # IPv4, nearly always
        return entry
    bare, port = (entry, "") if not entry.startswith("[") else (entry[1:].partition("]")[0], entry.partition("]")[2])
    try:
        return f"[{ipaddress.IPv6Address(bare)}]{port}"
    except ValueError:
        return entry
