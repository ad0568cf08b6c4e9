"""Triton's gRPC endpoints, over one channel.

Flow: InputValue → **tritonclient** → tensors of each response. The one module that knows tritonclient, which is not
typed.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from tritonclient.grpc.aio import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from tidegate.frontend.generator import GenerationError
from tidegate.frontend.triton.grpc_errors import failure, failure_in_stream
from tidegate.frontend.triton.inputs import InputValue
from tidegate.frontend.triton.model_io import TensorSpec, TextModel, parse_text_model
from tidegate.frontend.triton.outputs import Response, Tensor

CALL_TIMEOUT_S = 2.0
"""Limit on questions about the server and its models."""
INFER_TIMEOUT_S = 600.0
"""Limit on a whole answer of a model that gives it in one response."""
MAX_MESSAGE_BYTES = 2**26

_CHANNEL = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # The environment's proxy is for the internet; no other connection of ours takes it.
    ("grpc.enable_http_proxy", 0),
    # A Triton that restarts is found again within seconds; by itself gRPC waits up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A Triton whose machine is gone sends no RST. With pings on, gRPC lets the kernel give up what is not acknowledged
    # in time, such as the questions of each second; the pings are as rare as Triton wants them.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # What a slow client does not read stays in Triton but for this window, which gRPC would let grow to megabytes.
    ("grpc.http2.bdp_probe", 0),
]


class TritonClient:
    """One channel to one Triton, from `async with` to its end. All calls raise GenerationError when they fail."""

    def __init__(self, address: str) -> None:
        """`address`: host:port of gRPC."""
        self._address = address
        self._closing = False

    async def __aenter__(self) -> Self:
        self._client = InferenceServerClient(self._address, channel_args=_CHANNEL)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        """End all calls: those who wait for a response get a GenerationError."""
        self._closing = True
        await self._client.close()

    async def ready_models(self) -> dict[str, frozenset[str]]:
        """Return the names of the models that are ready, with their versions; none when the server itself is not."""
        try:
            if not await self._client.is_server_live(client_timeout=CALL_TIMEOUT_S):
                return {}
            index = await self._client.get_model_repository_index(client_timeout=CALL_TIMEOUT_S)
        except InferenceServerException as error:
            raise _translated(error) from error
        ready: dict[str, frozenset[str]] = {}
        for model in index.models:
            if model.state == "READY":
                ready[model.name] = ready.get(model.name, frozenset()) | {model.version}
        return ready

    async def describe(self, name: str) -> TextModel:
        """Ask for a model's metadata and configuration. Raises UnfitModelError where it does not generate text."""
        try:
            metadata = await self._client.get_model_metadata(name, client_timeout=CALL_TIMEOUT_S)
            config = (await self._client.get_model_config(name, client_timeout=CALL_TIMEOUT_S)).config
        except InferenceServerException as error:
            raise _translated(error) from error
        optional = {declared.name for declared in config.input if declared.optional}
        return parse_text_model(
            name,
            [_spec(tensor, optional=tensor.name in optional) for tensor in metadata.inputs],
            [_spec(tensor) for tensor in metadata.outputs],
            decoupled=config.model_transaction_policy.decoupled,
            accumulates=_parameter(config, "accumulate_tokens").lower() == "true",
        )

    async def infer(self, model: TextModel, values: Sequence[InputValue]) -> AsyncGenerator[Response, None]:
        """Yield the responses; closing the generator, or its cancellation, ends the request in Triton."""
        asked = {
            "model_name": model.name,
            "inputs": [_infer_input(value) for value in values],
            "outputs": [InferRequestedOutput(output) for output in model.outputs],
        }
        if not model.decoupled:
            yield await self._infer_whole(asked)
            return
        # With the header triton_grpc_error failures would have a status, not a message alone. But Triton 2.51 dies of
        # it: of SIGSEGV, within 500 failures of a model (2026-11-25).
        call = self._client.stream_infer(_only(asked))
        try:
            async for result, error in call:
                if error is not None:
                    raise failure_in_stream(error.message())
                yield _response(result)
        except grpc.aio.AioRpcError as error:
            raise failure(error.code().name, error.details() or "") from error
        except asyncio.CancelledError:
            self._raise_if_closed()
            raise
        finally:
            call.cancel()

    async def _infer_whole(self, asked: dict[str, Any]) -> Response:
        try:
            return _response(await self._client.infer(**asked, client_timeout=INFER_TIMEOUT_S))
        except InferenceServerException as error:
            raise _translated(error) from error
        except asyncio.CancelledError:
            self._raise_if_closed()
            raise

    def _raise_if_closed(self) -> None:
        """Tell the end of the channel, to which gRPC cancels its calls, from the end of the task that waits."""
        task = asyncio.current_task()
        if self._closing and task is not None and not task.cancelling():
            raise GenerationError("The server is stopping", status=503) from None


async def _only(asked: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    yield asked


def _parameter(config: Any, name: str) -> str:
    # Asking a protobuf map for a key that is not there would put it there.
    return str(config.parameters[name].string_value) if name in config.parameters else ""


def _spec(tensor: Any, *, optional: bool = False) -> TensorSpec:
    return TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape), optional=optional)


def _infer_input(value: InputValue) -> Any:
    tensor = InferInput(value.spec.name, value.shape, value.spec.datatype)
    elements = np.array(value.elements, dtype=triton_to_np_dtype(value.spec.datatype))
    return tensor.set_data_from_numpy(elements.reshape(value.shape))


def _response(result: Any) -> Response:
    message = result.get_response()
    if len(message.outputs) != len(message.raw_output_contents):
        problem = (
            f"Triton's response has {len(message.outputs)} outputs, and data for {len(message.raw_output_contents)}"
        )
        raise GenerationError(problem, status=502)
    return {
        output.name: Tensor(output.datatype, data)
        for output, data in zip(message.outputs, message.raw_output_contents, strict=True)
    }


def _translated(error: InferenceServerException) -> GenerationError:
    return failure(str(error.status()).removeprefix("StatusCode."), error.message() or "")
