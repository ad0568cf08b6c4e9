"""What a request puts into the inputs of a model.

Flow: GenerationRequest, TextModel → **InputValue** of each input → tensors.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.frontend.generator import GenerationError, GenerationRequest
from tidegate.frontend.triton.model_io import TensorSpec, TextModel

DEFAULT_MAX_TOKENS = 512
"""The limit of an answer that no client limits: untold, backends stop after 16 or 32 tokens, or want to be told."""

Fields = dict[str, float | list[str]]

_NOTHING_ASKED: Fields = {
    "top_p": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "min_tokens": 0,
}
"""Values that change nothing: no reason to refuse a request."""


@dataclass(frozen=True, slots=True)
class InputValue:
    """What one request puts into one input."""

    spec: TensorSpec
    elements: Sequence[bytes | float]
    """At least one; they lie in the last dimension."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of this tensor: the dimensions before the last are 1."""
        return (1,) * (len(self.spec.shape) - 1) + (len(self.elements),)


def render_inputs(model: TextModel, request: GenerationRequest) -> list[InputValue]:
    """Return what to put into the model's inputs; the others stay away.

    Raises:
        GenerationError: 400, with the field that was asked for and that the model has no input for.
    """
    if not isinstance(request.prompt, str):
        message = f"The model {model.name} takes its prompt as text, not as token ids"
        raise GenerationError(message, status=400, param="prompt")
    values = [InputValue(model.prompt, [_encode(request.prompt)])]
    values += [InputValue(switch, [True]) for switch in model.switches]
    fields = _asked(request)
    if model.parameters is not None:
        parameters = {"max_tokens": limit_of(request)} | fields
        return [*values, InputValue(model.parameters, [json.dumps(parameters).encode()])]
    if "max_tokens" in model.fields:
        fields["max_tokens"] = limit_of(request)
    _refuse_impossible(model, fields)
    values += [_value(spec, field, fields[field]) for field, spec in model.fields.items() if field in fields]
    filled = {value.spec for value in values}
    return values + [InputValue(words, [b""]) for words in model.words if words not in filled]


def limit_of(request: GenerationRequest) -> int:
    """Return after how many tokens the answer ends at the latest."""
    return DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens


def _asked(request: GenerationRequest) -> Fields:
    """Return what the client said, by the names that OpenAI and vLLM have for it."""
    sampling = request.sampling
    fields: dict[str, float | list[str] | None] = {
        "max_tokens": request.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": sampling.seed,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "min_tokens": sampling.min_tokens,
        "ignore_eos": sampling.ignore_eos or None,
        "stop": list(sampling.stop) or None,
    }
    return {field: value for field, value in fields.items() if value is not None}


def _refuse_impossible(model: TextModel, fields: Fields) -> None:
    for field, value in fields.items():
        # An answer is cut at the stop texts in any case; a model that does not know them only goes on for nothing.
        if field in model.fields or field == "stop" or value == _NOTHING_ASKED.get(field):
            continue
        message = f"The model {model.name} has no input for {field}. Leave it out"
        raise GenerationError(message, status=400, param=field)


def _value(spec: TensorSpec, field: str, value: float | list[str]) -> InputValue:
    if isinstance(value, list):
        return InputValue(spec, [_encode(text) for text in value])
    return InputValue(spec, [_wrap(int(value), spec.datatype) if field == "seed" else value])


def _wrap(seed: int, datatype: str) -> int:
    """Return the seed as a number of that type: any will do, as long as the same seed gives the same number."""
    bits = int(datatype.removeprefix("U").removeprefix("INT"))
    wrapped = seed & ((1 << bits) - 1)
    return wrapped if datatype.startswith("U") or wrapped < 1 << (bits - 1) else wrapped - (1 << bits)


def _encode(text: str) -> bytes:
    # "\ud800" is valid JSON, but no Unicode text.
    return text.encode(errors="replace")
