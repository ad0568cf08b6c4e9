"""The request phase of one ext_proc stream, without the stream: messages in, answers out.

Request path: headers, body → InferenceRequest → Director → **header and metadata with the pick**, body back
"""

from collections.abc import Callable, Iterator
from enum import Enum, auto

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from envoy.type.v3 import http_status_pb2
from google.protobuf import struct_pb2

from tidegate.gateway.body_length import body_length
from tidegate.gateway.names import DESTINATION, DROP_REASON, LB_METADATA, SUBSET, SUBSET_NAMESPACE
from tidegate.gateway.rejections import MAX_BODY_BYTES, check_model, no_endpoints, render_error, too_large
from tidegate.picker.director import Decision, Director
from tidegate.picker.request import InferenceRequest
from tidegate.protocol.errors import RequestRejected

MAX_CHUNK_BYTES = 62_000
"""Of a body sent back; Envoy's messages hold 64 KiB. Source: GIE proposal 004."""

_MODE = processing_mode_pb2.ProcessingMode


class UnexpectedMessageError(Exception):
    """A message that the protocol does not allow now."""


class _State(Enum):
    START = auto()
    COLLECTING = auto()
    """Full duplex: nothing is answered before the body has ended."""
    BUFFERED = auto()
    """The headers are answered; the body comes as one message."""
    DONE = auto()


class RequestPhase:
    """One request, from its headers to the pick. `take` every message until `done`."""

    def __init__(self, director: Director, clock: Callable[[], float]) -> None:
        self._director = director
        self._clock = clock
        self._state = _State.START
        self._path = ""
        self._subset: tuple[str, ...] | None = None
        self._chunks: list[bytes] = []
        self._body_bytes = 0

    @property
    def done(self) -> bool:
        """Whether everything is answered; the stream may be closed."""
        return self._state is _State.DONE

    def take(self, message: ext_proc.ProcessingRequest) -> list[ext_proc.ProcessingResponse]:
        """Return the answers to one message, perhaps none yet; UnexpectedMessageError when it is out of order."""
        self._read_subset(message)
        try:
            match message.WhichOneof("request"):
                case "request_headers" if self._state is _State.START:
                    return self._take_headers(message)
                case "request_body" if self._state in (_State.COLLECTING, _State.BUFFERED):
                    return self._take_body(message.request_body)
                case "request_trailers" if self._state is _State.COLLECTING:
                    return self._answer_full_duplex(trailers=True)
                case kind:
                    raise UnexpectedMessageError(f"{kind or 'an empty message'} is not expected here")
        except RequestRejected as rejected:
            self._state = _State.DONE
            return [_refuse(rejected)]

    def _take_headers(self, message: ext_proc.ProcessingRequest) -> list[ext_proc.ProcessingResponse]:
        headers = message.request_headers
        self._path = _header(headers, ":path").partition("?")[0]
        if headers.end_of_stream:
            return self._answer_headers()
        mode = message.protocol_config.request_body_mode if message.HasField("protocol_config") else None
        if mode == _MODE.BUFFERED:
            self._state = _State.BUFFERED
            return [ext_proc.ProcessingResponse(request_headers=ext_proc.HeadersResponse())]
        if mode in (None, _MODE.FULL_DUPLEX_STREAMED):
            self._state = _State.COLLECTING
            return []
        # No body will be shown to us before the headers are answered.
        self._body_bytes = body_length(_header(headers, "content-length"), seen=0)
        return self._answer_headers()

    def _take_body(self, body: ext_proc.HttpBody) -> list[ext_proc.ProcessingResponse]:
        self._chunks.append(body.body)
        self._body_bytes += len(body.body)
        if self._body_bytes > MAX_BODY_BYTES:
            raise too_large()
        if self._state is _State.BUFFERED:
            return self._answer_buffered()
        return self._answer_full_duplex(trailers=False) if body.end_of_stream else []

    def _answer_headers(self) -> list[ext_proc.ProcessingResponse]:
        decision = self._decide()
        self._state = _State.DONE
        answer = ext_proc.HeadersResponse(response=_redirect(decision))
        return [ext_proc.ProcessingResponse(request_headers=answer, dynamic_metadata=_metadata(decision))]

    def _answer_buffered(self) -> list[ext_proc.ProcessingResponse]:
        decision = self._decide()
        self._state = _State.DONE
        answer = ext_proc.BodyResponse(response=_redirect(decision))
        return [ext_proc.ProcessingResponse(request_body=answer, dynamic_metadata=_metadata(decision))]

    def _answer_full_duplex(self, *, trailers: bool) -> list[ext_proc.ProcessingResponse]:
        decision = self._decide()
        self._state = _State.DONE
        # Envoy takes the content-length away in this mode, because we might have changed the body.
        headers = ext_proc.HeadersResponse(response=_redirect(decision, content_length=self._body_bytes))
        answers = [ext_proc.ProcessingResponse(request_headers=headers, dynamic_metadata=_metadata(decision))]
        answers += _send_back(self._chunks, ends=not trailers)
        if trailers:
            answers.append(ext_proc.ProcessingResponse(request_trailers=ext_proc.TrailersResponse()))
        return answers

    def _decide(self) -> Decision:
        if self._chunks:
            check_model(self._path, b"".join(self._chunks))
        request = InferenceRequest(path=self._path, body_bytes=self._body_bytes, subset=self._subset)
        decision = self._director.decide(request, self._clock())
        if decision is None:
            raise no_endpoints()
        return decision

    def _read_subset(self, message: ext_proc.ProcessingRequest) -> None:
        """Note which endpoints are allowed; the last message that says so counts."""
        namespaces = message.metadata_context.filter_metadata
        if SUBSET_NAMESPACE in namespaces and SUBSET in (fields := namespaces[SUBSET_NAMESPACE].fields):
            hint = fields[SUBSET]
            # Some gateways join the list to one string.
            listed = [value.string_value for value in hint.list_value.values] or hint.string_value.split(",")
            self._subset = tuple(filter(None, map(str.strip, listed)))


def _header(headers: ext_proc.HttpHeaders, key: str) -> str:
    """Return a request header's value, which Envoy sends as bytes, and older versions as text; empty: there is none."""
    for header in headers.headers.headers:
        if header.key == key:
            return header.raw_value.decode(errors="replace") if header.raw_value else str(header.value)
    return ""


def _redirect(decision: Decision, *, content_length: int | None = None) -> ext_proc.CommonResponse:
    headers = {DESTINATION: ",".join(decision.destinations)}
    if content_length is not None:
        headers["content-length"] = str(content_length)
    return ext_proc.CommonResponse(
        clear_route_cache=True, header_mutation=ext_proc.HeaderMutation(set_headers=_options(headers))
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


def _metadata(decision: Decision) -> struct_pb2.Struct:
    pick = struct_pb2.Struct(fields={DESTINATION: struct_pb2.Value(string_value=",".join(decision.destinations))})
    return struct_pb2.Struct(fields={LB_METADATA: struct_pb2.Value(struct_value=pick)})


def _send_back(chunks: list[bytes], *, ends: bool) -> Iterator[ext_proc.ProcessingResponse]:
    """Yield the body byte for byte, in chunks as they came or smaller; the last one ends it if `ends`."""
    pieces = [
        chunk[start : start + MAX_CHUNK_BYTES] for chunk in chunks for start in range(0, len(chunk), MAX_CHUNK_BYTES)
    ] or [b""]
    for number, piece in enumerate(pieces, start=1):
        streamed = ext_proc.StreamedBodyResponse(body=piece, end_of_stream=ends and number == len(pieces))
        mutation = ext_proc.BodyMutation(streamed_response=streamed)
        answer = ext_proc.BodyResponse(response=ext_proc.CommonResponse(body_mutation=mutation))
        yield ext_proc.ProcessingResponse(request_body=answer)


def _refuse(rejected: RequestRejected) -> ext_proc.ProcessingResponse:
    headers = {"content-type": "application/json"} | ({DROP_REASON: rejected.reason} if rejected.reason else {})
    return ext_proc.ProcessingResponse(
        immediate_response=ext_proc.ImmediateResponse(
            status=http_status_pb2.HttpStatus(code=rejected.status),
            headers=ext_proc.HeaderMutation(set_headers=_options(headers)),
            body=render_error(rejected),
            details=rejected.reason or "rejected",
        )
    )
