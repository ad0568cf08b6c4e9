"""What a model takes, from its metadata, and what a request puts into it."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.frontend.generator import GenerationError, GenerationRequest, Sampling
from tidegate.frontend.triton.inputs import DEFAULT_MAX_TOKENS, render_inputs
from tidegate.frontend.triton.model_io import TensorSpec, TextModel, UnfitModelError, parse_text_model

TEXT_OUTPUT = TensorSpec("text_output", "BYTES", (-1,))
PROMPT = TensorSpec("text_input", "BYTES", (1,))


def spec(declared: str, *, batched: bool = False, optional: bool = True) -> TensorSpec:
    """Return the input that is written as `name:TYPE`."""
    name, _, datatype = declared.partition(":")
    return TensorSpec(name, datatype, (-1, 1) if batched else (1,), optional=optional)


def model_of(
    *inputs: str | TensorSpec,
    prompt: TensorSpec = PROMPT,
    outputs: Sequence[TensorSpec] = (TEXT_OUTPUT,),
    decoupled: bool = True,
    accumulates: bool = False,
) -> TextModel:
    """Return a model with these inputs, besides the prompt."""
    declared = [one if isinstance(one, TensorSpec) else spec(one) for one in inputs]
    return parse_text_model("m", [prompt, *declared], outputs, decoupled=decoupled, accumulates=accumulates)


def ensemble() -> TextModel:
    """Return TensorRT-LLM's ensemble as it was when word lists were not optional."""
    required = ["text_input:BYTES", "max_tokens:INT32"]
    words = [TensorSpec(name, "BYTES", (-1, -1)) for name in ("bad_words", "stop_words")]
    optional = ["stream:BOOL", "temperature:FP32", "top_k:INT32", "random_seed:UINT64", "end_id:INT32"]
    inputs = [spec(one, batched=True, optional=False) for one in required]
    inputs += [spec(one, batched=True) for one in optional]
    return parse_text_model("ensemble", [*inputs, *words], [TEXT_OUTPUT], decoupled=True, accumulates=False)


def ask(max_tokens: int | None = 5, *, prompt: str | list[int] = "tide", **sampling: Any) -> GenerationRequest:
    return GenerationRequest(model="m", prompt=prompt, max_tokens=max_tokens, sampling=Sampling(**sampling))


def inputs(model: TextModel, request: GenerationRequest) -> dict[str, list[object]]:
    """Return the elements of each input that is sent."""
    return {value.spec.name: list(value.elements) for value in render_inputs(model, request)}


def test_an_older_ensemble_gets_batches_of_one_and_empty_word_lists() -> None:
    values = render_inputs(ensemble(), ask(temperature=0.5, seed=3))

    assert {value.spec.name: (list(value.elements), value.shape) for value in values} == {
        "text_input": ([b"tide"], (1, 1)),
        "stream": ([True], (1, 1)),
        "max_tokens": ([5], (1, 1)),
        "temperature": ([0.5], (1, 1)),
        "random_seed": ([3], (1, 1)),
        "bad_words": ([b""], (1, 1)),
        "stop_words": ([b""], (1, 1)),
    }


def test_stop_texts_are_one_row_of_an_ensembles_stop_words() -> None:
    values = {value.spec.name: value for value in render_inputs(ensemble(), ask(stop=("a", "b")))}

    assert list(values["stop_words"].elements) == [b"a", b"b"]
    assert values["stop_words"].shape == (1, 2)


def test_stop_texts_are_kept_from_an_input_that_takes_only_one() -> None:
    assert "stop_words" not in inputs(model_of("stop_words:BYTES"), ask(None, stop=("a", "b")))


def test_the_flag_that_cancels_is_no_place_for_stop_texts() -> None:
    assert "stop" not in inputs(model_of("stop:BOOL"), ask(None, stop=("a",)))


def test_the_llm_apis_names_go_before_the_plain_ones() -> None:
    model = model_of("sampling_param_max_tokens:INT32", "max_tokens:INT32")

    assert inputs(model, ask(7)) == {"text_input": [b"tide"], "sampling_param_max_tokens": [7]}


def test_vllms_parameters_carry_everything_that_was_said_and_nothing_else() -> None:
    sent = inputs(model_of("sampling_parameters:BYTES"), ask(None, top_p=1.0, ignore_eos=True))

    assert json.loads(sent["sampling_parameters"][0]) == {  # type: ignore[arg-type]
        "max_tokens": DEFAULT_MAX_TOKENS,
        "top_p": 1.0,
        "ignore_eos": True,
    }


def test_a_model_that_must_be_told_a_limit_is_told_one() -> None:
    assert inputs(model_of("max_tokens:INT32"), ask(None))["max_tokens"] == [DEFAULT_MAX_TOKENS]
    assert inputs(model_of(), ask(None)) == {"text_input": [b"tide"]}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"max_tokens": 5}, "max_tokens"),
        ({"temperature": 0.0}, "temperature"),
        ({"seed": 0}, "seed"),
        ({"top_k": 1}, "top_k"),
        ({"min_tokens": 1}, "min_tokens"),
        ({"ignore_eos": True}, "ignore_eos"),
        ({"frequency_penalty": 0.1}, "frequency_penalty"),
    ],
)
def test_what_is_asked_of_a_model_that_cannot_is_named(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(GenerationError, match=f"has no input for {param}") as refused:
        render_inputs(model_of(), ask(**{"max_tokens": None, **asked}))

    assert (refused.value.status, refused.value.param) == (400, param)


def test_values_that_change_nothing_are_asked_of_any_model() -> None:
    nothing = {"top_p": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0, "repetition_penalty": 1.0}

    assert inputs(model_of(), ask(None, min_tokens=0, ignore_eos=False, stop=("x",), **nothing)) == {
        "text_input": [b"tide"]
    }


def test_an_input_of_another_type_than_the_fields_is_none_for_it() -> None:
    with pytest.raises(GenerationError, match="temperature"):
        render_inputs(model_of("temperature:BYTES"), ask(None, temperature=0.5))


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(["INT32", "INT64", "UINT32", "UINT64"]))
def test_any_seed_fits_its_input_and_keeps_its_low_bits(seed: int, datatype: str) -> None:
    [sent] = inputs(model_of(f"seed:{datatype}"), ask(None, seed=seed))["seed"]

    bits = int(datatype[-2:])
    least, most = (0, 2**bits - 1) if datatype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert isinstance(sent, int)
    assert least <= sent <= most
    assert (sent - seed) % 2**bits == 0


@given(st.text(min_size=1))
def test_any_prompt_is_utf_8(prompt: str) -> None:
    [sent] = inputs(model_of(), ask(None, prompt=prompt))["text_input"]

    assert isinstance(sent, bytes)
    assert sent.decode() == prompt.encode(errors="replace").decode()


def test_half_a_character_of_json_is_replaced() -> None:
    assert inputs(model_of(), ask(None, prompt="a\ud800b"))["text_input"] == [b"a?b"]


def test_token_ids_are_no_prompt() -> None:
    with pytest.raises(GenerationError, match="not as token ids") as refused:
        render_inputs(model_of(), ask(prompt=[1, 2]))

    assert (refused.value.status, refused.value.param) == (400, "prompt")


def test_a_model_that_answers_at_once_is_not_asked_for_parts() -> None:
    flags = ("streaming:BOOL", "stream:BOOL", "exclude_input_in_output:BOOL")

    assert inputs(model_of(*flags, decoupled=False), ask(None)).keys() == {"text_input", "exclude_input_in_output"}
    assert inputs(model_of(*flags), ask(None)).keys() == {
        "text_input",
        "streaming",
        "stream",
        "exclude_input_in_output",
    }


@pytest.mark.parametrize(
    ("inputs", "accumulates", "repeats"),
    [((), False, False), (("sampling_param_top_k:INT32",), False, True), (("stream:BOOL",), True, True)],
)
def test_who_repeats_the_answer_in_each_response(inputs: tuple[str, ...], accumulates: bool, repeats: bool) -> None:
    assert model_of(*inputs, accumulates=accumulates).repeats is repeats


def test_outputs_that_need_a_flag_are_asked_for_with_it() -> None:
    assert model_of().outputs == ("text_output",)
    assert model_of("return_finish_reason:BOOL", "return_num_input_tokens:BOOL").outputs == (
        "text_output",
        "finish_reason",
        "num_input_tokens",
    )


@pytest.mark.parametrize(
    ("prompt", "others", "outputs", "reason"),
    [
        (TensorSpec("text", "BYTES", (1,)), [], [TEXT_OUTPUT], "no input text_input"),
        (TensorSpec("text_input", "INT32", (1,)), [], [TEXT_OUTPUT], "no input text_input"),
        (PROMPT, [], [TensorSpec("text_output", "FP32", (1,))], "no output text_output"),
        (PROMPT, [TensorSpec("image", "UINT8", (-1,))], [TEXT_OUTPUT], "its input image is not optional"),
    ],
)
def test_a_model_that_does_not_generate_text_from_text_says_why(
    prompt: TensorSpec, others: list[TensorSpec], outputs: list[TensorSpec], reason: str
) -> None:
    with pytest.raises(UnfitModelError, match=reason):
        model_of(*others, prompt=prompt, outputs=outputs)
