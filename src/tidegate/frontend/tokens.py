"""Text and tokens of a simulated model: every four bytes of UTF-8 are a token, every word of an answer is one."""

from array import array
from collections.abc import Sequence
from zlib import crc32

BYTES_PER_TOKEN = 4
_WORDS = (
    *("tide", "gate", "water", "level", "moon", "wave", "harbour", "current", "sluice", "river", "delta", "sand"),
    *("shore", "flood", "ebb", "basin", "lock", "ship", "anchor", "pilot", "signal", "light", "storm", "calm"),
    *("depth", "channel", "reef", "island", "coast", "drift", "sail", "wind"),
)


def tokenize(prompt: str | Sequence[int]) -> Sequence[int]:
    """Return the token ids of a prompt; ids are taken as they are. Equal beginnings give equal tokens."""
    if not isinstance(prompt, str):
        return prompt
    # "\ud800" is valid JSON, but no Unicode text.
    encoded = prompt.encode(errors="replace")
    padding = -len(encoded) % BYTES_PER_TOKEN
    return array("I", encoded + bytes(padding))


class Answer:
    """The words of one answer, which depend on the prompt alone."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        # Neighbouring words differ by an odd step, so that all words of the list occur before one comes again.
        seed = crc32(array("I", token_ids).tobytes())
        self._next = seed
        self._step = seed >> 8 | 1
        self._separator = ""

    def next_token(self) -> str:
        """Return the next word, with a space before all but the first."""
        word = self._separator + _WORDS[self._next % len(_WORDS)]
        self._next += self._step
        self._separator = " "
        return word
