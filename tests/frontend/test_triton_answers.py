"""The responses of a model: tensors read with suspicion, texts put together, reasons and counts."""

import struct
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import serialize_byte_tensor

from tidegate.frontend.generator import GenerationError
from tidegate.frontend.triton.answer import Answer
from tidegate.frontend.triton.grpc_errors import MAX_MESSAGE_LENGTH, failure, failure_in_stream
from tidegate.frontend.triton.outputs import Response, Tensor, read_count, read_text

DATATYPES = ["BYTES", "BOOL", "INT8", "INT32", "INT64", "UINT32", "UINT64", "FP32", "BF16", "", "x" * 100]


def text(value: str | bytes) -> Tensor:
    value = value.encode() if isinstance(value, str) else value
    return Tensor("BYTES", struct.pack("<I", len(value)) + value)


def count(value: int, datatype: str = "INT32") -> Tensor:
    return Tensor(datatype, int(value).to_bytes(4, "little", signed=value < 0))


def told(responses: Sequence[Response], *, repeats: bool = False) -> tuple[list[str], Answer]:
    """Return the text of each response, and of the end, with the answer."""
    answer = Answer(repeats=repeats)
    return [*(answer.add(response) for response in responses), answer.end()], answer


@given(st.sampled_from(DATATYPES), st.binary(max_size=40))
def test_any_tensor_reads_or_is_a_bad_gateway(datatype: str, data: bytes) -> None:
    response = {"tensor": Tensor(datatype, data)}
    try:
        value = read_text(response, "tensor") if datatype == "BYTES" else read_count(response, "tensor")
    except GenerationError as error:
        failed = error
    else:
        assert value is None or isinstance(value, bytes if datatype == "BYTES" else int)
        return
    assert failed.status == 502
    assert len(str(failed)) < 200


@given(st.lists(st.binary(max_size=20), max_size=4))
def test_the_first_text_is_the_one_that_tritons_own_client_wrote(texts: list[bytes]) -> None:
    data = serialize_byte_tensor(np.array(texts, dtype=object))
    tensor = Tensor("BYTES", data.item() if data.size else b"")

    assert read_text({"t": tensor}, "t") == (texts[0] if texts else None)


@pytest.mark.parametrize(
    ("tensor", "problem"),
    [
        (Tensor("INT32", b"\1\0\0\0"), "of type INT32, not BYTES"),
        (Tensor("BYTES", b"\1\0"), "2 bytes long, too short"),
        (Tensor("BYTES", b"\xff\xff\xff\xffabc"), "its first text ends at 4294967299"),
    ],
)
def test_a_malformed_text_is_told(tensor: Tensor, problem: str) -> None:
    with pytest.raises(GenerationError, match=f"The model's output text_output is .*{problem}"):
        Answer(repeats=False).add({"text_output": tensor})


@pytest.mark.parametrize(
    ("tensor", "problem"),
    [
        (count(-1), "-1, and cannot be below 0"),
        (Tensor("FP32", b"1234"), "no whole number"),
        (Tensor("INT64", b"1"), "too short"),
    ],
)
def test_a_malformed_count_is_told(tensor: Tensor, problem: str) -> None:
    with pytest.raises(GenerationError, match=problem):
        Answer(repeats=False).add({"num_output_tokens": tensor})


@given(st.lists(st.text(max_size=5), max_size=8))
def test_parts_and_repetitions_give_the_same_answer(parts: list[str]) -> None:
    whole = ["".join(parts[: count + 1]) for count in range(len(parts))]

    deltas, in_parts = told([{"text_output": text(part)} for part in parts])
    news, repeated = told([{"text_output": text(said)} for said in whole], repeats=True)

    assert deltas == news == [*parts, ""]
    assert in_parts.responses == repeated.responses == len([part for part in parts if part])


@given(st.text(), st.lists(st.integers(0, 40), max_size=5))
def test_characters_that_are_cut_in_two_come_whole(said: str, cuts: list[int]) -> None:
    said = said.encode(errors="replace").decode()
    data = said.encode()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[start:end] for start, end in pairwise(places)]

    texts, _ = told([{"text_output": text(part)} for part in parts])

    assert "".join(texts) == said


def test_half_a_character_at_the_end_is_shown_as_missing() -> None:
    texts, _ = told([{"text_output": text(b"tide\xe2\x82")}])

    assert texts == ["tide", "�"]


def test_a_backend_that_no_longer_repeats_itself_is_understood() -> None:
    texts, _ = told([{"text_output": text(part)} for part in ("one", " two", " three")], repeats=True)

    assert texts == ["one", " two", " three", ""]


def test_a_repetition_that_takes_back_the_stop_text_adds_nothing() -> None:
    texts, _ = told([{"text_output": text(part)} for part in ("one", "one END", "one ")], repeats=True)

    assert texts == ["one", " END", "", ""]


def test_counts_of_the_parts_are_added_and_the_prompts_is_not() -> None:
    response = {"num_input_tokens": count(7, "UINT32"), "num_output_tokens": count(2, "UINT32")}

    _, answer = told([response, response])

    assert (answer.input_tokens, answer.output_tokens) == (7, 4)


@pytest.mark.parametrize(
    ("said", "tokens", "reason"),
    [("stop", 9, "stop"), ("length", 1, "length"), ("None", 5, "length"), ("", 4, "stop"), (None, 5, "length")],
)
def test_the_model_or_else_the_limit_tells_why_it_ended(said: str | None, tokens: int, reason: str) -> None:
    _, answer = told([{} if said is None else {"finish_reason": text(said)}])

    assert answer.reason(tokens, limit=5) == reason


def test_a_model_that_gave_up_is_no_answer() -> None:
    _, answer = told([{"finish_reason": text("cancelled")}])

    with pytest.raises(GenerationError, match="gave up on the answer: cancelled"):
        answer.reason(1, limit=5)


@pytest.mark.parametrize(
    ("status", "message", "http", "says"),
    [
        ("INVALID_ARGUMENT", "too odd\nAt: model.py(3)", 400, "Triton: too odd"),
        ("NOT_FOUND", "no such model", 404, "Triton: no such model"),
        ("RESOURCE_EXHAUSTED", "come back later", 429, "Triton: come back later"),
        ("RESOURCE_EXHAUSTED", "Received message larger than max (9 vs. 4)", 502, "larger than this server's limit"),
        ("UNAVAILABLE", "ipv4:10.0.0.1:8001: connection refused", 503, "cannot be reached"),
        ("CANCELLED", "CANCELLED", 503, "gave the request up"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", 504, "did not answer in time"),
        ("INTERNAL", "the executor died", 500, "Triton: the executor died"),
        ("INTERNAL", "Failed to process the request(s) for model 'm', message: secret", 500, "The model failed"),
        ("PERMISSION_DENIED", "no", 502, "Triton: no"),
        ("UNKNOWN", "", 502, "Triton: UNKNOWN"),
    ],
)
def test_what_grpc_says_becomes_what_http_says(status: str, message: str, http: int, says: str) -> None:
    error = failure(status, message)

    assert error.status == http
    assert says in str(error)
    for secret in ("model.py", "10.0.0.1", "secret"):
        assert secret not in str(error)


@pytest.mark.parametrize(
    ("message", "http"),
    [
        ("Request for unknown model: 'm' is not found", 404),
        ("Request for unknown model: 'm' has no available versions", 503),
        ("Server is stopping, scheduler for model has stopped accepting new inference requests", 503),
        ("Exceeds maximum queue size", 503),
        ("the executor died", 500),
    ],
)
def test_messages_without_a_status_are_told_by_their_words(message: str, http: int) -> None:
    assert failure_in_stream(message).status == http


def test_a_message_has_an_end() -> None:
    assert len(str(failure("INTERNAL", "x" * 10_000))) < MAX_MESSAGE_LENGTH + 20
