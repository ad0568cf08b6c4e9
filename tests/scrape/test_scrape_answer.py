"""One HTTP/1.1 answer read from pieces, in whatever sizes they arrive, and nothing beyond the limits."""

import contextlib
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.protocol.errors import ScrapeError, ScrapeFailure
from tidegate.scrape.answer import MAX_CHUNK_LINE_BYTES, MAX_CHUNKS, MAX_HEAD_BYTES, AnswerReader, HttpAnswer

OK = b"HTTP/1.1 200 OK\r\n"
LIMIT = 1000


def read(*pieces: bytes, ends: bool = False) -> HttpAnswer | None:
    reader = AnswerReader(LIMIT)
    answer = None
    for piece in pieces:
        assert answer is None, "an answer was complete before its last piece"
        answer = reader.feed(piece)
    return reader.end() if ends and answer is None else answer


def failure_of(*pieces: bytes, ends: bool = False) -> ScrapeFailure:
    with pytest.raises(ScrapeError) as caught:
        read(*pieces, ends=ends)
    return caught.value.reason


def test_status_content_type_and_body_are_read() -> None:
    answer = read(b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: Text/Plain\r\nCONTENT-LENGTH: 3\r\n\r\nabc")

    assert answer == HttpAnswer(503, "text/plain", b"abc")


@pytest.mark.parametrize("status_line", [b"HTTP/1.1 200\r\n", b"HTTP/1.1 200 \r\n", b"HTTP/1.0 200 Fine by me\r\n"])
def test_the_reason_phrase_does_not_matter(status_line: bytes) -> None:
    assert read(status_line + b"content-length: 0\r\n\r\n") == HttpAnswer(200, "", b"")


@pytest.mark.parametrize(
    "body",
    [
        b"3\r\nabc\r\n0\r\n\r\n",
        b"1;name=value\r\na\r\n 2 \r\nbc\r\n00\r\n\r\n",
        b"3\r\nabc\r\n0;last\r\ntrailer: value\r\nother: value\r\n\r\n",
        b"0000000000000003\r\nabc\r\n0\r\n\r\n",
    ],
)
def test_chunks_are_joined_without_extensions_and_trailers(body: bytes) -> None:
    assert read(OK + b"Transfer-Encoding: Chunked\r\n\r\n" + body) == HttpAnswer(200, "", b"abc")


def test_line_ends_inside_chunks_are_data() -> None:
    assert read(OK + b"transfer-encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n") == HttpAnswer(
        200, "", b"\r\n\r\n"
    )


def test_without_a_length_the_body_ends_with_the_connection() -> None:
    assert read(OK + b"\r\nab", b"c") is None
    assert read(OK + b"\r\nab", b"c", ends=True) == HttpAnswer(200, "", b"abc")


def test_interim_answers_are_passed_over() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"

    assert read(interim * 5000 + OK + b"content-length: 1\r\n\r\na") == HttpAnswer(200, "", b"a")


def test_a_status_without_a_body_ends_with_its_headers() -> None:
    assert read(b"HTTP/1.1 204 No Content\r\n\r\n") == HttpAnswer(204, "", b"")


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, bytes, bool]:
    """An answer, the body in it, and whether the end of the connection ends it."""
    parts = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    body = b"".join(parts)
    framing = draw(st.sampled_from(["length", "chunks", "close"]))
    head = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n" * draw(st.integers(0, 2)) + OK
    if framing == "length":
        return head + b"content-length: %d\r\n\r\n" % len(body) + body, body, False
    if framing == "close":
        return head + b"\r\n" + body, body, True
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\na: b\r\n\r\n", body, False


@given(answers(), st.data())
def test_an_answer_reads_the_same_however_it_is_cut(answer: tuple[bytes, bytes, bool], data: st.DataObject) -> None:
    whole, body, ends = answer
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1))))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    assert read(*pieces, ends=ends) == HttpAnswer(200, "", body)


@given(answers(), st.data())
def test_an_answer_cut_short_is_never_taken_for_a_whole_one(
    answer: tuple[bytes, bytes, bool], data: st.DataObject
) -> None:
    whole, _, ends = answer
    cut = data.draw(st.integers(0, len(whole) - 1))
    if ends and cut >= whole.index(b"\r\n\r\n", whole.index(OK)) + 4:
        return  # The end of the connection is all that could tell.

    assert failure_of(whole[:cut], ends=True) is ScrapeFailure.CLOSED


fragments = st.sampled_from(
    [OK, b"\r\n", b"content-length: 3", b"transfer-encoding: chunked", b"2\r\n", b"ab", b"0", b":"]
)


@given(st.lists(st.binary(max_size=20) | fragments, max_size=12))
def test_any_bytes_give_an_answer_a_scrape_error_or_nothing_yet(pieces: list[bytes]) -> None:
    reader = AnswerReader(LIMIT)
    with contextlib.suppress(ScrapeError):
        if not any(reader.feed(piece) for piece in pieces):
            reader.end()


@pytest.mark.parametrize(
    "answer",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"<html>",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"content-length: -1\r\n\r\n",
        OK + b"content-length: 1_0\r\n\r\n",
        OK + b"content-length: \r\n\r\n",
        OK + b"content-length: 3\r\ncontent-length: 4\r\n\r\n",
        OK + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        OK + b"transfer-encoding: gzip, chunked\r\n\r\n",
        OK + b"content-encoding: gzip\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n0x3\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n-3\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n00000000000000003\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n" + b" " * (MAX_CHUNK_LINE_BYTES + 1),
    ],
)
def test_what_was_not_asked_for_is_refused(answer: bytes) -> None:
    assert failure_of(answer) is ScrapeFailure.NOT_HTTP


@pytest.mark.parametrize(
    "pieces",
    [
        [OK + b"content-length: 1001\r\n\r\n"],
        [OK + b"content-length: 999999999999999999\r\n\r\n"],
        [OK + b"\r\n", b"x" * 1001],
        [OK + b"transfer-encoding: chunked\r\n\r\n", b"3e9\r\n" + b"x" * 1001],
        [OK + b"transfer-encoding: chunked\r\n\r\n", *([b"1\r\nx\r\n"] * 1001)],
        [OK + b"transfer-encoding: chunked\r\n\r\n0\r\n", *([b"a: %s\r\n" % (b"x" * 4000)] * 17)],
        [OK + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"a\r\n" * (MAX_HEAD_BYTES // 3 + 1)],
        [OK, b"a: " + b"x" * MAX_HEAD_BYTES],
        [OK + b"a: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n"],
    ],
)
def test_what_exceeds_a_limit_is_refused_as_soon_as_it_does(pieces: list[bytes]) -> None:
    assert failure_of(*pieces) is ScrapeFailure.TOO_LARGE


def test_the_chunks_of_a_body_are_limited_in_number() -> None:
    head, chunks, end = OK + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * MAX_CHUNKS, b"0\r\n\r\n"

    assert AnswerReader(2 * MAX_CHUNKS).feed(head + chunks + end) == HttpAnswer(200, "", b"x" * MAX_CHUNKS)
    with pytest.raises(ScrapeError, match=f"the body has more than {MAX_CHUNKS} chunks") as caught:
        AnswerReader(2 * MAX_CHUNKS).feed(head + chunks + b"1\r\n")
    assert caught.value.reason is ScrapeFailure.TOO_LARGE


@pytest.mark.parametrize(
    ("framing", "piece"),
    [(b"transfer-encoding: chunked", b"2\r\nab\r\n"), (b"content-length: 100000", b"ab"), (b"", b"ab")],
    ids=["chunked", "length", "until the end"],
)
def test_a_body_in_tiny_pieces_takes_no_more_memory_than_its_size(framing: bytes, piece: bytes) -> None:
    reader = AnswerReader(100_000)
    with tracing_memory():
        reader.feed(OK + framing + b"\r\n\r\n")
        for _ in range(MAX_CHUNKS):
            reader.feed(bytes(bytearray(piece)))  # a new object each time, as from a socket

        held_bytes, _ = tracemalloc.get_traced_memory()

    assert held_bytes < 5 * 2 * MAX_CHUNKS


@contextlib.contextmanager
def tracing_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (OK + b"content-length: 0\r\n\r\n", True),
        (OK + b"connection: close\r\ncontent-length: 0\r\n\r\n", False),
        (OK + b"Connection: Close\r\ncontent-length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n", True),
        (OK + b"content-length: 1\r\n\r\nabc", False),
        (OK + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1", False),
    ],
)
def test_a_connection_is_kept_only_where_the_next_answer_will_be_the_next(answer: bytes, kept: bool) -> None:
    reader = AnswerReader(LIMIT)

    assert reader.feed(answer) is not None
    assert reader.keep_alive is kept


def test_bytes_behind_the_body_are_not_part_of_it() -> None:
    assert read(OK + b"content-length: 1\r\n\r\nabc") == HttpAnswer(200, "", b"a")
