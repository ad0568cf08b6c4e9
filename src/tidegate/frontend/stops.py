"""Ends an answer at the first of some texts, which is no part of it.

Flow: pieces of a Generator → **cut_at_stops** → pieces of the answer. The texts may begin in one piece and end in
another, so what may be the beginning of one is held back.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from tidegate.frontend.generator import Piece


class StopFinder:
    """Takes an answer part by part; tells what of it can be given away."""

    def __init__(self, stops: Sequence[str]) -> None:
        """`stops`: not empty, nor is any of them."""
        self._stops = stops
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """Return the text that is certain, and whether the answer ends with it."""
        text = self._held + text
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self._held = ""
            return text[: min(places)], True
        held = max(_overlap(text, stop) for stop in self._stops)
        certain = len(text) - held
        self._held = text[certain:]
        return text[:certain], False

    def rest(self) -> str:
        """Return what was held back, now that the answer is over."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return how many letters at the end of a text may be the beginning of a stop; fewer than it has."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)


async def cut_at_stops(pieces: AsyncGenerator[Piece, None], stops: Sequence[str]) -> AsyncGenerator[Piece, None]:
    """Yield the pieces up to the first stop; the generator is closed there, which frees what the answer holds."""
    finder = StopFinder(stops)
    async with aclosing(pieces):
        async for piece in pieces:
            text, ended = finder.feed(piece.text)
            if ended:
                yield Piece(text, "stop", piece.usage)
                return
            if piece.finish_reason is not None:
                yield Piece(text + finder.rest(), piece.finish_reason, piece.usage)
            elif text:
                yield Piece(text)
