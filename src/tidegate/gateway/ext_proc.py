"""The second door to the decision: any other gateway asks by ext_proc, the Endpoint Picker protocol.

Request path: stream of messages → ext_proc_phase.RequestPhase → answers; then the stream is closed.

Closing it right after the request phase costs a fourth of echoing every chunk of the answer: Envoy takes a graceful
close for "no further wishes". Only a request whose body goes back in several messages keeps its stream for the
response. Source of the protocol: GIE proposal 004.
"""

from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc

from tidegate.gateway.ext_proc_phase import Answers, RequestPhase, ResponsePhase, UnexpectedMessageError
from tidegate.picker.director import Director

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"


class ExternalProcessorService:
    """Answers one stream per HTTP request."""

    def __init__(self, director: Director, clock: Callable[[], float]) -> None:
        self._director = director
        self._clock = clock

    def handler(self) -> "grpc.GenericRpcHandler[ext_proc.ProcessingRequest, ext_proc.ProcessingResponse]":
        """Return what a gRPC server needs to serve this."""
        process = grpc.stream_unary_rpc_method_handler(
            self.process,
            request_deserializer=ext_proc.ProcessingRequest.FromString,
            response_serializer=ext_proc.ProcessingResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Process": process})

    async def process(
        self,
        messages: AsyncIterator[ext_proc.ProcessingRequest],
        context: "grpc.aio.ServicerContext[ext_proc.ProcessingRequest, bytes]",
    ) -> ext_proc.ProcessingResponse:
        """Answer one request's messages until its pick is made, and those of the response where that is needed."""
        request = RequestPhase(self._director, self._clock)
        response = ResponsePhase()
        phase: RequestPhase | ResponsePhase = request
        async for message in messages:
            try:
                answers = phase.take(message)
            except UnexpectedMessageError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            is_last = phase.done and (phase is response or request.closable)
            # To Envoy this is a stream of answers like any other. To grpc it is a single answer, because only that one
            # leaves in one piece with the close: were the close a moment later, a quick server's response could come
            # first, and what Envoy then passed to us of its body would be lost.
            last = await _write(answers, context, keep_last=is_last)
            if last is not None:
                return last
            if phase.done:
                phase = response
        return await context.abort(grpc.StatusCode.CANCELLED, "the stream ended before its request did")


async def _write(
    answers: Answers,
    context: "grpc.aio.ServicerContext[ext_proc.ProcessingRequest, bytes]",
    *,
    keep_last: bool,
) -> ext_proc.ProcessingResponse | None:
    """Send the answers, all but the last one if that is to be kept; returns it."""
    held: ext_proc.ProcessingResponse | None = None
    for answer in answers:
        if held is not None:
            await context.write(held.SerializeToString())
        held = answer
    if held is not None and not keep_last:
        await context.write(held.SerializeToString())
        return None
    return held
