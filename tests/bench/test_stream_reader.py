"""Bytes of a streamed chat completion → what the client needs to know."""

import json
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.bench.stream import MAX_LINE_BYTES, MalformedStreamError, StreamReader


def event(**chunk: object) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def token(text: str | None, **more: object) -> bytes:
    return event(id="1", system_fingerprint="sim-3", choices=[{"index": 0, "delta": {"content": text}}], **more)


DONE = b"data: [DONE]\n\n"
USAGE = event(choices=[], usage={"prompt_tokens": 9, "completion_tokens": 42})
ROLE = event(system_fingerprint="sim-3", choices=[{"delta": {"role": "assistant", "content": ""}}])
ANSWER = ROLE + token("Tides") + token(" turn.") + token(' "error" "completion_tokens" [DONE]') + USAGE + DONE


def read(*pieces: bytes) -> StreamReader:
    reader = StreamReader()
    for at, piece in enumerate(pieces):
        reader.feed(piece, now=float(at))
    return reader


def test_the_first_token_is_the_first_chunk_with_content() -> None:
    reader = read(b": comment\n\n", ROLE, token(None), token("Tides"), token(" turn."), DONE)

    assert reader.first_content_at == 3.0
    assert reader.last_content_at == 4.0
    assert reader.served_by == "sim-3"


def test_usage_counts_the_tokens_where_the_server_reports_it() -> None:
    assert read(token("Tides"), USAGE, DONE).output_tokens == 42


def test_chunks_count_the_tokens_where_it_does_not() -> None:
    assert read(ROLE + token("a") + token("b"), token("c"), DONE).output_tokens == 3


def test_done_is_the_whole_event_and_not_a_word_of_the_answer() -> None:
    assert read(token("a"), DONE).done
    assert not read(token("a"), token("data: [DONE]")).done
    assert not read(token("a"), b"data: [DONE]").done  # cut before the line's end


@pytest.mark.parametrize("before", [b"", token("a")])
def test_an_error_event_is_seen_before_and_after_the_first_token(before: bytes) -> None:
    reader = read(before, event(error={"message": "engine died", "code": 500}), DONE)

    assert reader.error == '{"message": "engine died", "code": 500}'


def test_an_answer_that_speaks_of_errors_is_no_error_event() -> None:
    reader = read(token('"error": "completion_tokens"'), token('{"error": {}}'), event(error=None, choices=[]), DONE)

    assert reader.error is None
    assert reader.output_tokens == 2


@pytest.mark.parametrize(
    "line",
    [
        b'data: {"choices": [{"delta": {"content": "a"}}]\n',
        b'data: "content"\n',
        b'data: {"choices": {"content": 1}}\n',
        b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n',
        b'data: {"choices": [], "usage": {"completion_tokens": -3}}\n',
        b'data: {"choices": [], "usage": {"completion_tokens": 1' + b"0" * 20 + b"}}\n",
        b'data: {"error": ' + b"[" * 100_000 + b"\n",
    ],
)
def test_an_event_that_is_no_chunk_is_malformed(line: bytes) -> None:
    with pytest.raises(MalformedStreamError):
        read(line)


def test_a_line_without_end_is_malformed_before_it_fills_the_memory() -> None:
    with pytest.raises(MalformedStreamError, match="longer than"):
        read(*[b"x" * 1000] * (MAX_LINE_BYTES // 1000 + 1))


@given(st.lists(st.integers(0, len(ANSWER)), max_size=12))
def test_the_stream_may_be_cut_anywhere(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(ANSWER)]

    reader = read(*(ANSWER[start:end] for start, end in pairwise(bounds)))

    assert (reader.served_by, reader.output_tokens, reader.done, reader.error) == ("sim-3", 42, True, None)
    assert reader.first_content_at is not None
    assert reader.content_chunks == 3


@given(
    st.lists(
        st.one_of(st.binary(max_size=40), st.sampled_from([b"data: ", b'"content"', b'"error"', ANSWER])), max_size=8
    )
)
def test_any_bytes_are_read_or_malformed_and_nothing_else(pieces: list[bytes]) -> None:
    with suppress(MalformedStreamError):
        read(*pieces)
