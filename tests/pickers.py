"""`tidegate picker` alone, as any ext_proc gateway finds it, and a gateway's side of the protocol in raw streams."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

import grpc
import grpc.aio
from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2 as processing_mode
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc

from processes import Gateway, tidegate

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
PICK = "x-gateway-destination-endpoint"
SUBSET = "x-gateway-destination-endpoint-subset"
Mode = processing_mode.ProcessingMode


class Picker(Gateway):
    """A running `tidegate picker`."""

    grpc = ""
    """`host:port` of ext_proc."""
    health = ""
    """`host:port` of the health checks."""

    async def ask(
        self, messages: Iterable[ext_proc.ProcessingRequest], *, half_close: bool = True
    ) -> "list[ext_proc.ProcessingResponse]":
        """Send one request's messages, then return all that is answered until the picker closes the stream."""
        async with grpc.aio.insecure_channel(self.grpc) as channel:
            call = open_stream(channel)
            for message in messages:
                await call.write(message)
            if half_close:
                await call.done_writing()
            return [answer async for answer in call]


def open_stream(
    channel: grpc.aio.Channel,
) -> "grpc.aio.StreamStreamCall[ext_proc.ProcessingRequest, ext_proc.ProcessingResponse]":
    """Begin one request."""
    process: Callable[..., grpc.aio.StreamStreamCall[ext_proc.ProcessingRequest, ext_proc.ProcessingResponse]]
    process = channel.stream_stream(
        f"/{SERVICE}/Process",
        request_serializer=ext_proc.ProcessingRequest.SerializeToString,
        response_deserializer=ext_proc.ProcessingResponse.FromString,
    )
    return process(timeout=20)


@contextlib.asynccontextmanager
async def picker(file: Path, *servers: str, lines: Sequence[str] | None = None) -> AsyncIterator[Picker]:
    """Run it over a file of endpoints (`host:port`, or the lines given), and wait until it has read that."""
    file.write_text("endpoints:\n" + "".join(lines or map(_entry, servers)) if servers or lines else "endpoints: []\n")
    free = ("--host", "127.0.0.1", "--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0")
    async with tidegate("picker", *free, "--endpoints", str(file)) as started:
        running = Picker(started.process)
        said = await running.said(r"answers gRPC on (\S+), (\S+), HTTP on (\S+)")
        running.grpc, running.health, running.admin = said[1], said[2], f"http://{said[3]}"
        if servers or lines:
            await running.ready()
        yield running


def _entry(address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"  - {{name: '{address}', address: {host}, port: {port}}}\n"


def headers(
    *,
    path: str = "/v1/chat/completions",
    mode: "Mode.BodySendMode | None" = Mode.FULL_DUPLEX_STREAMED,
    response_mode: "Mode.BodySendMode" = Mode.NONE,
    ends: bool = False,
    **others: str,
) -> ext_proc.ProcessingRequest:
    """Return the first message of a stream; underscores of further headers become hyphens."""
    message = ext_proc.ProcessingRequest()
    message.request_headers.end_of_stream = ends
    if mode is not None:
        message.protocol_config.request_body_mode = mode
        message.protocol_config.response_body_mode = response_mode
    for key, value in {":method": "POST", ":path": path, **others}.items():
        message.request_headers.headers.headers.add(key=key.replace("_", "-"), raw_value=value.encode())
    return message


def body(content: bytes, *, ends: bool = True) -> ext_proc.ProcessingRequest:
    """Return one message with a part of the body."""
    return ext_proc.ProcessingRequest(request_body=ext_proc.HttpBody(body=content, end_of_stream=ends))


def trailers() -> ext_proc.ProcessingRequest:
    """Return the message that ends a body when trailers follow it."""
    return ext_proc.ProcessingRequest(request_trailers=ext_proc.HttpTrailers())


def response_headers(*, ends: bool = False) -> ext_proc.ProcessingRequest:
    """Return the message that begins a response."""
    return ext_proc.ProcessingRequest(response_headers=ext_proc.HttpHeaders(end_of_stream=ends))


def response_body(content: bytes, *, ends: bool) -> ext_proc.ProcessingRequest:
    """Return one message with a part of a response."""
    return ext_proc.ProcessingRequest(response_body=ext_proc.HttpBody(body=content, end_of_stream=ends))


def response_trailers() -> ext_proc.ProcessingRequest:
    """Return the message that ends a response when trailers follow it."""
    return ext_proc.ProcessingRequest(response_trailers=ext_proc.HttpTrailers())


def allowing(message: ext_proc.ProcessingRequest, addresses: Sequence[str]) -> ext_proc.ProcessingRequest:
    """Add the endpoints that the gateway allows."""
    message.metadata_context.filter_metadata["envoy.lb.subset_hint"].update({SUBSET: list(addresses)})
    return message


def header_pick(answer: ext_proc.ProcessingResponse) -> str:
    """Return the pick as the header has it, from whichever kind of answer it is."""
    common = (answer.request_headers if answer.HasField("request_headers") else answer.request_body).response
    [pick] = [option.header for option in common.header_mutation.set_headers if option.header.key == PICK]
    assert not pick.value  # Envoy refuses a header that sets both
    return pick.raw_value.decode()


def metadata_pick(answer: ext_proc.ProcessingResponse) -> str:
    """Return the pick as the dynamic metadata has it."""
    return str(answer.dynamic_metadata["envoy.lb"][PICK])


def refusal(answers: "list[ext_proc.ProcessingResponse]") -> tuple[int, str, bytes]:
    """Return status, reason header (or nothing) and body of the one answer, which must be immediate."""
    [answer] = answers
    immediate = answer.immediate_response
    set_headers = {option.header.key: option.header.raw_value.decode() for option in immediate.headers.set_headers}
    assert set_headers["content-type"] == "application/json"
    return immediate.status.code, set_headers.get("x-llm-d-request-dropped-reason", ""), immediate.body
