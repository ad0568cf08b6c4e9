"""The two halves of one ext_proc stream, without the stream: messages in, answers out.

Request path: headers, body → InferenceRequest → Director → **header and metadata with the pick**, body back
"""

from collections.abc import Callable, Iterator
from enum import Enum, auto

from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc

from tidegate.gateway.body_length import body_length
from tidegate.gateway.ext_proc_messages import (
    MAX_CHUNK_BYTES,
    metadata,
    read_header,
    read_subset,
    redirect,
    refuse,
    streamed,
)
from tidegate.gateway.rejections import MAX_BODY_BYTES, check_model, no_endpoints, too_large
from tidegate.picker.director import Decision, Director
from tidegate.picker.request import InferenceRequest
from tidegate.protocol.errors import RequestRejected

_MODE = processing_mode_pb2.ProcessingMode

Answers = Iterator[ext_proc.ProcessingResponse]


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
        # Joined as it comes: a client may send it byte by byte.
        self._body = bytearray()
        self._has_body = False
        self._response_is_shown = True

    @property
    def done(self) -> bool:
        """Whether the request is decided: nothing is to come but the last answers."""
        return self._state is _State.DONE

    @property
    def closable(self) -> bool:
        """Whether the stream may be closed with the last answer; otherwise the response phase is to be answered, too.

        A server may answer before it has the whole request. While a long body goes back in several messages, its answer
        may be on its way to us, and would be lost.
        """
        return len(self._body) <= MAX_CHUNK_BYTES or not self._response_is_shown

    def take(self, message: ext_proc.ProcessingRequest) -> Answers:
        """Return the answers to one message, perhaps none yet; UnexpectedMessageError when it is out of order."""
        if (subset := read_subset(message)) is not None:
            self._subset = subset  # the last message that says so counts
        try:
            match message.WhichOneof("request"):
                case "request_headers" if self._state is _State.START:
                    return self._take_headers(message)
                case "request_body" if self._state in (_State.COLLECTING, _State.BUFFERED):
                    return self._take_body(message.request_body)
                case "request_trailers" if self._state is _State.COLLECTING:
                    return self._answer_full_duplex(self._decide(), trailers=True)
                case kind:
                    raise UnexpectedMessageError(f"{kind or 'an empty message'} is not expected here")
        except RequestRejected as rejected:
            self._state = _State.DONE
            self._body.clear()
            return iter([refuse(rejected)])

    def _take_headers(self, message: ext_proc.ProcessingRequest) -> Answers:
        headers = message.request_headers
        self._path = read_header(headers, ":path").partition("?")[0]
        if headers.end_of_stream:
            return self._answer_headers(self._decide())
        mode = None
        if message.HasField("protocol_config"):
            mode = message.protocol_config.request_body_mode
            self._response_is_shown = message.protocol_config.response_body_mode != _MODE.NONE
        if mode == _MODE.BUFFERED:
            self._state = _State.BUFFERED
            return iter([ext_proc.ProcessingResponse(request_headers=ext_proc.HeadersResponse())])
        if mode in (None, _MODE.FULL_DUPLEX_STREAMED):
            self._state = _State.COLLECTING
            return iter(())
        # No body will be shown to us before the headers are answered.
        return self._answer_headers(self._decide(body_length(read_header(headers, "content-length"), seen=0)))

    def _take_body(self, body: ext_proc.HttpBody) -> Answers:
        self._has_body = True
        self._body += body.body
        if len(self._body) > MAX_BODY_BYTES:
            raise too_large()
        if self._state is _State.BUFFERED:
            return self._answer_buffered(self._decide())
        return self._answer_full_duplex(self._decide(), trailers=False) if body.end_of_stream else iter(())

    def _decide(self, body_bytes: int | None = None) -> Decision:
        """Make the decision. `body_bytes`: where the body is not seen."""
        if self._has_body:
            check_model(self._path, self._body)
        request = InferenceRequest(
            path=self._path, body_bytes=len(self._body) if body_bytes is None else body_bytes, subset=self._subset
        )
        decision = self._director.decide(request, self._clock())
        if decision is None:
            raise no_endpoints()
        self._state = _State.DONE
        return decision

    def _answer_headers(self, decision: Decision) -> Answers:
        answer = ext_proc.HeadersResponse(response=redirect(decision))
        yield ext_proc.ProcessingResponse(request_headers=answer, dynamic_metadata=metadata(decision))

    def _answer_buffered(self, decision: Decision) -> Answers:
        answer = ext_proc.BodyResponse(response=redirect(decision))
        yield ext_proc.ProcessingResponse(request_body=answer, dynamic_metadata=metadata(decision))

    def _answer_full_duplex(self, decision: Decision, *, trailers: bool) -> Answers:
        # Envoy takes the content-length away in this mode, because we might have changed the body.
        headers = ext_proc.HeadersResponse(response=redirect(decision, content_length=len(self._body)))
        yield ext_proc.ProcessingResponse(request_headers=headers, dynamic_metadata=metadata(decision))
        if self._has_body:  # trailers may follow headers without any
            for part in streamed(self._body, ends=not trailers):
                yield ext_proc.ProcessingResponse(request_body=ext_proc.BodyResponse(response=part))
        if trailers:
            yield ext_proc.ProcessingResponse(request_trailers=ext_proc.TrailersResponse())


class ResponsePhase:
    """One response, given back as it came, until `done`. Costs a message for each chunk of a stream."""

    def __init__(self) -> None:
        self.done = False

    def take(self, message: ext_proc.ProcessingRequest) -> Answers:
        """Return the answers to one message; UnexpectedMessageError when it is none of a response."""
        match message.WhichOneof("request"):
            case "response_headers":
                self.done = message.response_headers.end_of_stream
                return iter([ext_proc.ProcessingResponse(response_headers=ext_proc.HeadersResponse())])
            case "response_body":
                body = message.response_body
                self.done = body.end_of_stream
                parts = streamed(body.body, ends=body.end_of_stream)
                return (
                    ext_proc.ProcessingResponse(response_body=ext_proc.BodyResponse(response=part)) for part in parts
                )
            case "response_trailers":
                self.done = True
                return iter([ext_proc.ProcessingResponse(response_trailers=ext_proc.TrailersResponse())])
            case kind:
                raise UnexpectedMessageError(f"{kind or 'an empty message'} is not expected here")
