"""A model in the shape of TensorRT-LLM's Triton backend on the LLM API, with a stand-in for the LLM.

The LLM's event loop has a thread of its own, requests run on it, and `finalize` ends both. What the stand-in tells is
what stands in a file beside the model, replay/<instance>: one JSON document a line, read as it grows.

    {"args": {"enable_iter_perf_stats": true}}   the LLM's arguments; only before it is loaded
    {"rows": [{"iter": 1, …}, …]}                iterations that are pending from now on
    {"raises": "the executor died"}              until the next line that says rows
    {"hangs": 60}                                the next look takes so many seconds
"""

import asyncio
import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import triton_python_backend_utils as pb_utils

from tidegate.publish.triton import TritonReporter


class StandInLLM:
    def __init__(self, replay):
        self._replay = replay
        self._read = 0
        self._problem = None
        first = json.loads(replay.read_text().partition("\n")[0]) if replay.exists() else {}
        self.args = SimpleNamespace(**first.get("args", {"enable_iter_perf_stats": True}))

    def get_stats(self, timeout):
        rows = []
        for line in self._lines():
            rows += line.get("rows", [])
            self._problem = None if "rows" in line else line.get("raises", self._problem)
            time.sleep(line.get("hangs", 0))
        if self._replay is None:
            raise AttributeError("'NoneType' object has no attribute 'get_stats'")
        if self._problem:
            raise RuntimeError(self._problem)
        return rows

    def _lines(self):
        if self._replay is None or not self._replay.exists():
            return []
        lines = self._replay.read_text().splitlines()
        new, self._read = lines[self._read :], len(lines)
        return [json.loads(line) for line in new]

    def shutdown(self):
        self._replay = None


class TritonPythonModel:
    def initialize(self, args):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        replay = Path(args["model_repository"]) / "replay" / args["model_instance_name"]
        self._llm = StandInLLM(replay)
        self._reporter = TritonReporter(pb_utils, args, self._llm).start()

    def execute(self, requests):
        for request in requests:
            asyncio.run_coroutine_threadsafe(self._answer(request), self._loop)

    async def _answer(self, request):
        tokens = {
            name: int(pb_utils.get_input_tensor_by_name(request, name).as_numpy().item())
            for name in ("input_tokens", "output_tokens")
        }
        self._reporter.observe(**tokens)
        text = np.array([b"tide"], dtype=np.object_)
        response = pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("text_output", text)])
        request.get_response_sender().send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def finalize(self):
        self._reporter.stop()
        left = [thread.name for thread in threading.enumerate() if thread.name.startswith("tidegate")]
        pb_utils.Logger.log_warn(f"threads left: {left}")
        self._llm.shutdown()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
