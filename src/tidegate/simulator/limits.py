"""The capacity of a simulated model server."""

from dataclasses import dataclass
from enum import StrEnum

from tidegate.protocol.errors import ConfigError


class CapacityPolicy(StrEnum):
    """When a waiting request may start; TensorRT-LLM's capacity scheduler policies."""

    GUARANTEED_NO_EVICT = "guaranteed-no-evict"
    """When prompt and longest answer fit beside what the running requests may still need."""
    MAX_UTILIZATION = "max-utilization"
    """When the prompt fits. If blocks run out later, the youngest requests are paused and recomputed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one server can hold and do at a time; counts, > 0."""

    max_batch_size: int = 64
    """Requests admitted at a time, running or waiting for room; the others are queued."""
    max_tokens_per_iteration: int = 8192
    """Prompt tokens and generated tokens of one iteration. Longer prompts are prefilled in chunks."""
    num_blocks: int = 7240
    """KV-cache blocks."""
    tokens_per_block: int = 32
    capacity_policy: CapacityPolicy = CapacityPolicy.GUARANTEED_NO_EVICT

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_tokens_per_iteration", "num_blocks", "tokens_per_block"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"{value} leaves no room for any request", key=name, fix="Use 1 or more.")

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds; count."""
        return self.num_blocks * self.tokens_per_block
