"""A Triton model that is no LLM: one answer for one request, as KServe's infer wants it."""

import os

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        text = pb_utils.get_input_tensor_by_name(request, "text").as_numpy()
        served_by = np.array([os.environ["SERVED_BY"].encode()], dtype=np.object_)
        outputs = [pb_utils.Tensor("echoed", text), pb_utils.Tensor("served_by", served_by)]
        return pb_utils.InferenceResponse(output_tensors=outputs)
