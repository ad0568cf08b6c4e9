"""A model whose prompt says how it fails."""

import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
FLOOD_RESPONSES, FLOOD_BYTES = 4000, 16_384


def response(text):
    return pb_utils.InferenceResponse(
        output_tensors=[pb_utils.Tensor("text_output", np.array([text], dtype=np.object_))]
    )


def error(code, problem):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(problem, code))


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            prompt = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy().item().decode()
            getattr(self, f"_{prompt}")(request.get_response_sender())

    def _raises(self, sender):
        raise RuntimeError("the secret of /opt/models is lost")

    def _refuses(self, sender):
        sender.send(error(pb_utils.TritonError.INVALID_ARG, "the prompt is too odd"), flags=FINAL)

    def _fails(self, sender):
        sender.send(error(pb_utils.TritonError.INTERNAL, "the executor died\nAt: model.py(7)"), flags=FINAL)

    def _breaks_off(self, sender):
        for word in (b"one", b" two"):
            sender.send(response(word))
        sender.send(error(pb_utils.TritonError.INTERNAL, "the executor died"), flags=FINAL)

    def _counts(self, sender):
        """Answer with numbers where text is due."""
        numbers = pb_utils.Tensor("text_output", np.array([1, 2, 3], dtype=np.int32))
        sender.send(pb_utils.InferenceResponse(output_tensors=[numbers]), flags=FINAL)

    def _babbles(self, sender):
        """Answer with bytes that are no UTF-8."""
        sender.send(response(b"ti\xff\xfede"), flags=FINAL)

    def _says_nothing(self, sender):
        sender.send(flags=FINAL)

    def _empties(self, sender):
        """Answer with a tensor without elements."""
        empty = pb_utils.Tensor("text_output", np.array([], dtype=np.object_))
        sender.send(pb_utils.InferenceResponse(output_tensors=[empty]), flags=FINAL)

    def _waits(self, sender):
        """Say one word and then nothing, until the client leaves."""
        sender.send(response(b"wait"))
        threading.Thread(target=self._wait, args=(sender,), daemon=True).start()

    def _wait(self, sender):
        while not sender.is_cancelled():
            time.sleep(0.02)
        sender.send(error(pb_utils.TritonError.CANCELLED, "the client has left"), flags=FINAL)

    def _floods(self, sender):
        """Answer with 64 MB, as fast as it can."""
        threading.Thread(target=self._flood, args=(sender,), daemon=True).start()

    def _flood(self, sender):
        for _ in range(FLOOD_RESPONSES):
            if sender.is_cancelled():
                break
            sender.send(response(b"~" * FLOOD_BYTES))
        sender.send(flags=FINAL)
