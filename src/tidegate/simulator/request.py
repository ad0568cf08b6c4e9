"""What goes into the batch manager."""

from dataclasses import dataclass

from tidegate.protocol.errors import TidegateError


class RequestTooLongError(TidegateError):
    """The request can never fit this server, so waiting would not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt and how long its answer may become."""

    request_id: str
    """Unique among the requests that have not finished."""
    prompt_tokens: int
    """Length of the prompt; count, > 0."""
    block_hashes: tuple[int, ...] = ()
    """Chained hashes of the prompt's full blocks, from `hash_blocks`; may be fewer: the rest is not reused."""
    max_tokens: int
    """Tokens to generate at most, which is what the batch manager reserves room for; count, > 0."""
    stop_after: int | None = None
    """Tokens after which the model ends its answer by itself; count, > 0. None: it never does."""

    @property
    def answer_tokens(self) -> int:
        """How many tokens the answer will have."""
        return self.max_tokens if self.stop_after is None else min(self.max_tokens, self.stop_after)
