"""A model with the inputs and outputs of TensorRT-LLM's older ensembles, in batches, and no LLM.

It says the words of its prompt, and repeats the answer so far in each response, as accumulate_tokens has it. The prompt
"inputs" is answered with the inputs of the request and their shapes, in JSON.
"""

import json

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


def elements(tensor):
    return [one.decode() if isinstance(one, bytes) else one for one in tensor.as_numpy().flatten().tolist()]


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            given = {tensor.name(): tensor for tensor in request.inputs()}
            [prompt] = elements(given["text_input"])
            words = prompt.split()[: elements(given["max_tokens"])[0]]
            if prompt == "inputs":
                shapes = {name: [elements(one), list(one.as_numpy().shape)] for name, one in given.items()}
                words = [json.dumps(shapes)]
            self._say(words, request.get_response_sender())

    def _say(self, words, sender):
        for count in range(1, len(words) + 1):
            text = np.array([[" ".join(words[:count]).encode()]], dtype=np.object_)
            response = pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("text_output", text)])
            sender.send(response, flags=FINAL if count == len(words) else 0)
