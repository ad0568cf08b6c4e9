"""What the decision may know of a request. Grows only with what a configured plugin needs."""

from collections.abc import Collection, Hashable
from dataclasses import dataclass

BYTES_PER_TOKEN = 4
"""A prompt's usual bytes per token, when nothing better is known; English text in JSON."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One request, as Envoy described it."""

    path: str
    """Path without the query."""
    body_bytes: int
    """Length of the whole body, of which we may have seen only the beginning."""
    subset: Collection[str] | None = None
    """`ip:port` (or bare `ip`) of the only endpoints the gateway allows; None: any."""

    origin: Hashable = None
    """What tells it from all other requests at the gateway; None: nothing that its outcome will say, too."""

    @property
    def prompt_tokens(self) -> float:
        """About how many tokens the prompt has, from its length."""
        return self.body_bytes / BYTES_PER_TOKEN
