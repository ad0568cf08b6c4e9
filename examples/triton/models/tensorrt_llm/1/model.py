"""A Triton model that batches, queues and runs out of KV cache as TensorRT-LLM does, without a GPU.

Runs inside Triton's Python backend. The statistics of its batch manager go through tidegate's Reporter to Triton's own
metrics port, as the TensorRT-LLM backend published them.
"""

import json
import os
import socket
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from driver import Driver, Job

from tidegate.publish.reporter import Reporter
from tidegate.publish.triton import PbUtilsBackend
from tidegate.simulator.batch_manager import BatchManager
from tidegate.simulator.cost import CostModel
from tidegate.simulator.limits import Limits


class TritonPythonModel:
    """The three methods that Triton calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start the batch manager that the `parameters` of config.pbtxt describe."""
        config = json.loads(args["model_config"])
        manager = build(**{key: value["string_value"] for key, value in config["parameters"].items()})
        reporter = Reporter(PbUtilsBackend(pb_utils), model=args["model_name"], version=args["model_version"])
        self._served_by = os.environ.get("SERVED_BY", socket.gethostname())
        self._driver = Driver(manager, reporter)
        self._driver.start()

    def execute(self, requests: list[Any]) -> None:
        """Take the requests in; the answers come later, from the driver's thread."""
        for request in requests:
            stream = pb_utils.get_input_tensor_by_name(request, "stream")
            self._driver.submit(
                Job(
                    prompt=_value(request, "text_input").decode(),
                    max_tokens=int(_value(request, "max_tokens")),
                    stream=stream is not None and bool(stream.as_numpy().item()),
                    client=TritonClient(request.get_response_sender(), self._served_by),
                )
            )

    def finalize(self) -> None:
        """End the driver's thread."""
        self._driver.stop()


class TritonClient:
    """Sends an answer through Triton, part by part."""

    def __init__(self, sender: Any, served_by: str) -> None:
        self._sender = sender
        self._served_by = served_by

    def has_left(self) -> bool:
        """Return whether Triton has seen its client's connection close."""
        return bool(self._sender.is_cancelled())

    def send(self, text: str, *, last: bool) -> None:
        """Send one response."""
        outputs = [_text_tensor("text_output", text), _text_tensor("served_by", self._served_by)]
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0
        self._sender.send(pb_utils.InferenceResponse(output_tensors=outputs), flags=flags)

    def refuse(self, problem: str) -> None:
        """Send an error that is the client's."""
        self._end(pb_utils.TritonError(problem, pb_utils.TritonError.INVALID_ARG))

    def fail(self, problem: str) -> None:
        """Send an error as the last response: without one Triton would count the request as running for ever."""
        self._end(pb_utils.TritonError(problem))

    def _end(self, error: Any) -> None:
        response = pb_utils.InferenceResponse(error=error)
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def build(*, max_batch_size: str, num_blocks: str, tokens_per_block: str, iteration_ms: str) -> BatchManager:
    """Return the batch manager that these model parameters describe."""
    limits = Limits(
        max_batch_size=int(max_batch_size), num_blocks=int(num_blocks), tokens_per_block=int(tokens_per_block)
    )
    return BatchManager(limits, CostModel(iteration_base_s=float(iteration_ms) / 1000))


def _value(request: Any, name: str) -> Any:
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy().item()


def _text_tensor(name: str, text: str) -> Any:
    return pb_utils.Tensor(name, np.array([text.encode()], dtype=np.object_))
