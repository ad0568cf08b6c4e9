"""What the HTTP API needs from whatever generates the answers."""

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, Protocol

import msgspec

from tidegate.protocol.errors import TidegateError

FinishReason = Literal["stop", "length"]


class GenerationError(TidegateError):
    """The generator will not, or cannot, answer. `status` is the HTTP status to say so with."""

    def __init__(self, message: str, *, status: int, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        """The field of the client's request that is the reason, as OpenAI calls it."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are chosen, and when an answer ends; None and empty: as the model does by itself.

    Every field is named as in OpenAI's API, or where that has none, as in vLLM's.
    """

    temperature: float | None = None
    """In [0, 2]; 0 takes the likeliest token."""
    top_p: float | None = None
    """In (0, 1]."""
    top_k: int | None = None
    """Count, > 0."""
    seed: int | None = None
    frequency_penalty: float | None = None
    """In [-2, 2]."""
    presence_penalty: float | None = None
    """In [-2, 2]."""
    repetition_penalty: float | None = None
    """> 0; 1 is none."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer and are no part of it. The API cuts there; the generator may end earlier for it."""
    min_tokens: int | None = None
    """Tokens before which the model may not end its answer; count, >= 0."""
    ignore_eos: bool = False
    """Whether the model goes on to `max_tokens` whatever it says."""


DEFAULT_SAMPLING = Sampling()


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt, ready to be tokenized."""

    model: str
    prompt: str | Sequence[int]
    """Text, or token ids, each in [0, 2**31); not empty."""
    max_tokens: int | None
    """Tokens to generate at most; count, > 0. None: until the model ends its answer."""
    sampling: Sampling = DEFAULT_SAMPLING


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one request took; tokens."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    """Prompt tokens that were in the KV cache already."""
    estimated: bool = False
    """Whether the tokens were not counted but guessed from the length of the texts."""


class Piece(msgspec.Struct, frozen=True):
    """The next part of an answer."""

    text: str
    finish_reason: FinishReason | None = None
    """Set on the last piece only."""
    usage: Usage | None = None
    """Up to here. Set on the last piece, and on every piece where the request has `stop` texts: any may be the last."""


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

    async def exposition(self) -> bytes:
        """Return its metrics in the Prometheus text format.

        Raises ScrapeError when it cannot have them now.
        """
