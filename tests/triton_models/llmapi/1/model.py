"""A model with the inputs and outputs of TensorRT-LLM's Triton backend on the LLM API, and no LLM.

It says the words of its prompt, one a token, again and again; each response repeats the answer so far. The prompt
"inputs" is answered with the inputs of the request, in JSON.
"""

import json

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
DEFAULT_MAX_TOKENS = 32


def values(request):
    """Return the inputs of a request by name, those with one element as that."""
    found = {}
    for tensor in request.inputs():
        elements = [one.decode() if isinstance(one, bytes) else one for one in tensor.as_numpy().flatten().tolist()]
        found[tensor.name()] = elements if tensor.name() == "sampling_param_stop" else elements[0]
    return found


def text_tensor(name, text):
    return pb_utils.Tensor(name, np.array([text.encode()], dtype=np.object_))


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            self._answer(request.get_response_sender(), values(request))

    def _answer(self, sender, asked):
        words, limit = self._words(asked), asked.get("sampling_param_max_tokens", DEFAULT_MAX_TOKENS)
        reason = "length" if len(words) > limit else "stop"
        words = words[:limit]
        first = len(words) if not asked.get("streaming") else 1
        for count in range(first, len(words) + 1):
            last = count == len(words)
            outputs = [text_tensor("text_output", "".join(words[:count]))]
            if asked.get("return_finish_reason"):
                outputs.append(text_tensor("finish_reason", reason if last else "None"))
            sender.send(pb_utils.InferenceResponse(output_tensors=outputs), flags=FINAL if last else 0)

    def _words(self, asked):
        if asked["text_input"] == "inputs":
            return [json.dumps(asked)]
        begin = "" if asked.get("sampling_param_exclude_input_from_output") else asked["text_input"]
        words = asked["text_input"].split()
        return [begin + words[0], *(f" {word}" for word in words[1:] + words * 9)]
