"""What the HTTP API needs from whatever generates the answers."""

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, Protocol

import msgspec

from tidegate.protocol.errors import TidegateError

FinishReason = Literal["stop", "length"]


class GenerationError(TidegateError):
    """The generator will not, or cannot, answer. `status` is the HTTP status to say so with."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt, ready to be tokenized."""

    model: str
    prompt: str | Sequence[int]
    """Text, or token ids, each in [0, 2**31); not empty."""
    max_tokens: int | None
    """Tokens to generate at most; count, > 0. None: until the model ends its answer."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one request took; tokens."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    """Prompt tokens that were in the KV cache already."""


class Piece(msgspec.Struct, frozen=True):
    """The next part of an answer."""

    text: str
    finish_reason: FinishReason | None = None
    """Set on the last piece only."""
    usage: Usage | None = None
    """Set on the last piece only."""


class Generator(Protocol):
    """Answers prompts. One per server; its methods are called from one event loop."""

    def models(self) -> Sequence[str]:
        """Return the names of the models it serves."""

    def ready(self) -> bool:
        """Return whether it takes requests now."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        """Yield the answer piece by piece, each as soon as it exists; the last one carries reason and usage.

        Closing the generator gives the request up and frees what it holds. `request.model` is one of `models()`.
        Raises GenerationError, before the first piece or between two.
        """

    def exposition(self) -> bytes:
        """Return its metrics in the Prometheus text format."""
