"""What a model that generates text takes and gives, read from its metadata.

Flow: metadata of a model → **TextModel** → inputs of a request, pieces of an answer. The names are those of
TensorRT-LLM's backend on the LLM API, of its ensembles, and of the vLLM backend.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tidegate.protocol.errors import TidegateError

PROMPT = "text_input"
TEXT = "text_output"
FINISH_REASON = "finish_reason"
INPUT_TOKENS = "num_input_tokens"
OUTPUT_TOKENS = "num_output_tokens"

TEXTS = frozenset({"BYTES"})
FLAGS = frozenset({"BOOL"})
INTS = frozenset({"INT32", "INT64", "UINT32", "UINT64"})
FLOATS = frozenset({"FP16", "FP32", "FP64"})

FIELDS: Mapping[str, frozenset[str]] = {
    "max_tokens": INTS,
    "temperature": FLOATS,
    "top_p": FLOATS,
    "top_k": INTS,
    "seed": INTS,
    "frequency_penalty": FLOATS,
    "presence_penalty": FLOATS,
    "repetition_penalty": FLOATS,
    "min_tokens": INTS,
    "stop": TEXTS,
}
"""Fields of a request, and the types of an input that can carry each."""
_LLM_API = "sampling_param_"
"""Before the field's name in the inputs of the LLM API backend; the ensembles have it alone."""
_OTHER_NAMES = {"seed": "random_seed", "stop": "stop_words"}
"""What older ensembles call it. The LLM API backend has an input `stop`, too: a flag, that cancels a request."""
_PARAMETERS = "sampling_parameters"

_IN_PARTS = ("streaming", "stream")
_WITHOUT_PROMPT = ("sampling_param_exclude_input_from_output", "exclude_input_in_output")
_ADDED_OUTPUTS = {f"return_{output}": output for output in (FINISH_REASON, INPUT_TOKENS, OUTPUT_TOKENS)}
"""Flags, and the output that each brings."""
_WORDS = ("bad_words", "stop_words")
"""Lists that some ensembles want in every request."""


class UnfitModelError(TidegateError):
    """The model does not make text of text, and this is why."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or an output of a model."""

    name: str
    datatype: str
    """As KServe spells it: BYTES, BOOL, INT32, FP32 …"""
    shape: tuple[int, ...]
    """Batch dimension included; -1: any."""
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModel:
    """A model that generates text, with its inputs by what they carry."""

    name: str
    decoupled: bool
    """Whether it may give several responses to one request."""
    repeats: bool
    """Whether each response has the whole answer so far, not only what is new."""
    prompt: TensorSpec
    switches: tuple[TensorSpec, ...]
    """Flags to set: the answer in parts, without the prompt, with its reason and counts."""
    fields: Mapping[str, TensorSpec]
    """Inputs by the field of FIELDS that they carry."""
    parameters: TensorSpec | None
    """The vLLM backend's input that carries all fields, as JSON."""
    words: tuple[TensorSpec, ...]
    """Lists of words that may be empty, but not absent."""
    outputs: tuple[str, ...]
    """Those to ask for."""


def parse_text_model(
    name: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    decoupled: bool,
    accumulates: bool,
) -> TextModel:
    """Return what carries what.

    Args:
        accumulates: whether its configuration says that each response repeats the answer so far.

    Raises:
        UnfitModelError: it lacks the input of the prompt or the output of the text, or needs an input unknown here.
    """
    given = {spec.name: spec for spec in inputs}
    several = {spec.name: spec for spec in inputs if spec.shape[-1:] == (-1,)}
    prompt = _first(given, [PROMPT], TEXTS)
    if prompt is None or _first({spec.name: spec for spec in outputs}, [TEXT], TEXTS) is None:
        raise UnfitModelError(f"it has no input {PROMPT}, or no output {TEXT}, of type BYTES")
    switches = (*(_IN_PARTS if decoupled else ()), *_WITHOUT_PROMPT, *_ADDED_OUTPUTS)
    fields = {
        field: _first(several if kinds is TEXTS else given, _names(field), kinds) for field, kinds in FIELDS.items()
    }
    model = TextModel(
        name=name,
        decoupled=decoupled,
        # The LLM API's streams repeat the text: its CompletionOutput.text grows.
        repeats=accumulates or any(spec.name.startswith(_LLM_API) for spec in inputs),
        prompt=prompt,
        switches=tuple(given[switch] for switch in switches if _first(given, [switch], FLAGS)),
        fields={field: spec for field, spec in fields.items() if spec is not None},
        parameters=_first(given, [_PARAMETERS], TEXTS),
        words=tuple(given[words] for words in _WORDS if words in given and not given[words].optional),
        outputs=(TEXT, *(output for switch, output in _ADDED_OUTPUTS.items() if switch in given)),
    )
    _refuse_unknown(model, inputs)
    return model


def _names(field: str) -> list[str]:
    return [_LLM_API + field, field, *([_OTHER_NAMES[field]] if field in _OTHER_NAMES else [])]


def _first(given: Mapping[str, TensorSpec], names: Iterable[str], kinds: frozenset[str]) -> TensorSpec | None:
    return next((given[name] for name in names if name in given and given[name].datatype in kinds), None)


def _refuse_unknown(model: TextModel, inputs: Sequence[TensorSpec]) -> None:
    filled = {model.prompt, *model.switches, *model.words, model.parameters, model.fields.get("max_tokens")}
    for spec in inputs:
        if not spec.optional and spec not in filled:
            raise UnfitModelError(f"its input {spec.name} is not optional, and nothing here fills it")
