"""One answer as its responses come: the text that is new, why it ended, what it took.

Flow: responses of a model → **Answer** → text of the next Piece, finish reason, counts.
"""

import codecs

from tidegate.frontend.generator import FinishReason, GenerationError
from tidegate.frontend.triton.model_io import FINISH_REASON, INPUT_TOKENS, OUTPUT_TOKENS, TEXT
from tidegate.frontend.triton.outputs import Response, read_count, read_text

_NOT_YET = frozenset({"", "None"})
"""How backends spell that the answer goes on: Python's None as text."""


class Answer:
    """Adds up the responses to one request."""

    def __init__(self, *, repeats: bool) -> None:
        """`repeats`: whether each response has the whole answer so far."""
        self._repeats = repeats
        self._said = b""
        # A character of several bytes may come in two responses.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._reason = ""
        self.responses = 0
        """Those that brought text."""
        self.text_bytes = 0
        self.input_tokens: int | None = None
        """As the backend reports; None: it does not."""
        self.output_tokens: int | None = None
        """As the backend reports; None: it does not."""

    def add(self, response: Response) -> str:
        """Return the text that is new. Raises GenerationError for a malformed output."""
        reason = read_text(response, FINISH_REASON)
        if reason is not None:
            self._reason = reason.decode(errors="replace")
        if (tokens := read_count(response, INPUT_TOKENS)) is not None:
            self.input_tokens = tokens
        if (tokens := read_count(response, OUTPUT_TOKENS)) is not None:
            self.output_tokens = (self.output_tokens or 0) + tokens  # of this response
        new = self._new(read_text(response, TEXT) or b"")
        self.responses += bool(new)
        self.text_bytes += len(new)
        return self._decoder.decode(new)

    def end(self) -> str:
        """Return what is left of the text, now that no response follows."""
        return self._decoder.decode(b"", final=True)

    def reason(self, tokens: int, limit: int) -> FinishReason:
        """Return why the answer ended: as the model says, or else by whether its tokens reach the limit.

        Raises:
            GenerationError: 502, the model gave up.
        """
        match self._reason:
            case "stop" | "length" as reason:
                return reason
            case given_up if given_up not in _NOT_YET:
                raise GenerationError(f"The model gave up on the answer: {given_up[:100]}", status=502)
            case _:
                return "length" if tokens >= limit else "stop"

    def _new(self, text: bytes) -> bytes:
        if not self._repeats:
            return text
        if text.startswith(self._said):
            new = text[len(self._said) :]
            self._said = text
            return new
        if self._said.startswith(text):
            return b""  # what ended the answer was taken back
        # Metadata does not tell whether this version of the backend repeats itself: it does not.
        self._repeats = False
        return text
