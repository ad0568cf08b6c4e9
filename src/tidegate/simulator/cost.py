"""How long one iteration of a model server takes."""

from dataclasses import dataclass, fields

from tidegate.protocol.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """Iteration time as a linear function of what the batch holds; seconds, each >= 0.

    The defaults are plausible for an 8-billion-parameter model on one data-centre GPU of 2024.
    """

    iteration_base_s: float = 0.008
    """One iteration with nothing in it: reading the weights once. 0.005 to 0.03; grows with the model."""
    prefill_s_per_token: float = 3e-5
    """One prompt token that is not in the KV cache. 1e-5 to 2e-4; compute-bound."""
    decode_s_per_request: float = 3e-5
    """One request that generates, without its attention: sampling and bookkeeping. 1e-5 to 1e-4."""
    attention_s_per_cached_token: float = 4e-8
    """Reading the keys and values of one cached token: bytes per token / memory bandwidth. 1e-8 to 2e-7."""
    between_steps_s: float = 0.001
    """Scheduling and answering between two iterations, when the GPU idles. 0.0005 to 0.005.

    Easy to forget, and a simulator without it is optimistic.
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            seconds = getattr(self, field.name)
            if not 0 <= seconds < float("inf"):
                raise ConfigError(f"{seconds} is not a time", key=field.name, fix="Use seconds, 0 or more.")
        if self.iteration_base_s + self.between_steps_s <= 0:
            problem = "an iteration would take no time"
            raise ConfigError(problem, key="iteration_base_s", fix="Use more than 0 seconds.")

    def iteration_s(self, *, context_tokens: int, generating_requests: int, cached_tokens: int) -> float:
        """Return how long one iteration takes, the gap before the next one included; seconds, > 0.

        `context_tokens` are prefilled in it, `generating_requests` get one token each, and the batch attends to
        `cached_tokens` that are in the KV cache already.
        """
        return (
            self.iteration_base_s
            + self.between_steps_s
            + self.prefill_s_per_token * context_tokens
            + self.decode_s_per_request * generating_requests
            + self.attention_s_per_cached_token * cached_tokens
        )
