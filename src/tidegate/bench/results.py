"""What became of one request of a load run.

Bench: workload → client → **results** → report.
"""

from dataclasses import dataclass
from enum import StrEnum


class ErrorKind(StrEnum):
    """How a request failed, as its client saw it."""

    CONNECT = "connect"
    """No answer came: refused, or closed before the response headers."""
    STATUS = "status"
    """The answer's status is not 200."""
    TRUNCATED = "truncated"
    """The stream ended without [DONE]."""
    EVENT = "error event"
    """The stream carried an error in the place of a token."""
    MALFORMED = "malformed"
    """The stream is not what an OpenAI client could read."""
    TIMEOUT = "timeout"
    UNSENT = "not sent"
    """It was due, but as many connections as may be were open already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestResult:
    """One request. Times count from when it was *due*, so that a late client cannot flatter the server."""

    at_s: float
    """When it was due; seconds since the run began."""
    late_s: float
    """How long after that it was sent; seconds, >= 0."""
    status: int | None
    """HTTP status; None when no response came."""
    error: ErrorKind | None
    detail: str = ""
    """The error in words; empty when all went well."""
    ttft_s: float | None
    """Until the first chunk with content; seconds. None when none came."""
    e2e_s: float
    """Until the answer ended or failed; seconds."""
    tpot_s: float | None
    """Time per output token after the first; seconds. None for less than two tokens."""
    output_tokens: int
    """As the server counted them (usage), or else events with text."""
    served_by: str | None
    """`system_fingerprint` of the answer (Triton: the output `served_by`): simulated servers put their name there."""
    counted: bool = False
    """Whether the server counted the tokens."""
    prompt_tokens: int | None = None
    """As the server counted them; None where it did not."""
    cached_tokens: int | None = None
    """Tokens of the prompt that were in the server's cache, as it says; None where it does not."""
