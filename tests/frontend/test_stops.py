"""An answer ends at the first of some texts, wherever the pieces of the answer are cut."""

from collections.abc import AsyncGenerator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.frontend.generator import Piece, Usage
from tidegate.frontend.stops import cut_at_stops

_LETTERS = st.text("ab", max_size=4)


class Source:
    """Gives an answer in pieces; knows how many were taken, and whether it was closed."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self.taken = 0
        self.closed = False

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        try:
            for number, text in enumerate(self._texts, 1):
                self.taken = number
                usage = Usage(prompt_tokens=1, completion_tokens=number, cached_tokens=0)
                yield Piece(text, "length" if number == len(self._texts) else None, usage)
        finally:
            self.closed = True


async def cut(source: Source, stops: Sequence[str]) -> list[Piece]:
    return [piece async for piece in cut_at_stops(source.pieces(), stops)]


@given(
    st.lists(_LETTERS, min_size=1, max_size=6), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3)
)
async def test_the_answer_is_the_text_before_the_first_stop_however_it_is_cut(
    texts: list[str], stops: list[str]
) -> None:
    whole = "".join(texts)
    # A stop counts once it is complete: of two that overlap the one that ends first.
    ends = [(place + len(stop), place) for stop in stops if (place := whole.find(stop)) >= 0]
    source = Source(texts)

    pieces = await cut(source, stops)

    text = "".join(piece.text for piece in pieces)
    assert pieces[-1].finish_reason == ("stop" if ends else "length")
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert source.closed
    if not ends:
        assert text == whole
    else:
        assert not any(stop in text for stop in stops)
        assert whole.startswith(text)
        assert any(whole[len(text) :].startswith(stop) for stop in stops)


async def test_what_may_be_the_beginning_of_a_stop_waits_for_the_next_piece() -> None:
    pieces = await cut(Source(["low ", "ti", "de", " at", " ten"]), ["tides", "at ten"])

    assert [(piece.text, piece.finish_reason) for piece in pieces] == [
        ("low ", None),
        ("tide ", None),
        ("", "stop"),
    ]


async def test_nothing_is_generated_after_the_stop_and_the_usage_is_that_of_the_piece_it_ends_in() -> None:
    source = Source(["one", " two", " three", " four"])

    *_, last = await cut(source, ["tw"])

    assert (source.taken, source.closed) == (2, True)
    assert last.usage is not None
    assert last.usage.completion_tokens == 2


@pytest.mark.parametrize("stops", [["END"], ["E", "END"]])
async def test_what_was_held_back_is_given_when_the_answer_ends_otherwise(stops: list[str]) -> None:
    pieces = await cut(Source(["the ", "EN" if stops == ["END"] else "N"]), stops)

    assert "".join(piece.text for piece in pieces) == ("the EN" if stops == ["END"] else "the N")
    assert pieces[-1].finish_reason == "length"
