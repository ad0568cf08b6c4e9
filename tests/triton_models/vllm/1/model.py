"""A model with the inputs and outputs of Triton's vLLM backend, and no vLLM.

It says the words of its prompt, two tokens each; each response has only what is new. The prompt "inputs" is answered
with its sampling parameters.
"""

import json

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
TOKENS_PER_WORD = 2
DEFAULT_MAX_TOKENS = 16


def value(request, name):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()[0]


def count_tensor(name, count):
    return pb_utils.Tensor(name, np.array([count], dtype=np.uint32))


def text_tensor(name, text):
    return pb_utils.Tensor(name, np.array([text.encode()], dtype=np.object_))


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            self._answer(request)

    def _answer(self, request):
        prompt = value(request, "text_input").decode()
        sampling = json.loads(value(request, "sampling_parameters") or b"{}")
        words = prompt.split() if prompt != "inputs" else [json.dumps(sampling)]
        limit = sampling.get("max_tokens", DEFAULT_MAX_TOKENS) // TOKENS_PER_WORD
        reason = "length" if len(words) > limit else "stop"
        words = [(" " if place else "") + word for place, word in enumerate(words[:limit])]
        if not value(request, "exclude_input_in_output"):
            words[0] = prompt + words[0]
        if not value(request, "stream"):
            words = ["".join(words)]
        sender = request.get_response_sender()
        for place, word in enumerate(words):
            outputs = [text_tensor("text_output", word)]
            if value(request, "return_finish_reason"):
                outputs.append(text_tensor("finish_reason", reason if place == len(words) - 1 else "None"))
            if value(request, "return_num_input_tokens"):
                outputs.append(count_tensor("num_input_tokens", TOKENS_PER_WORD * len(prompt.split())))
            if value(request, "return_num_output_tokens"):
                outputs.append(count_tensor("num_output_tokens", TOKENS_PER_WORD))
            sender.send(pb_utils.InferenceResponse(output_tensors=outputs))
        sender.send(flags=FINAL)
