"""The load of one endpoint, as its last scrape saw it.

Signals path: exposition → scan → **LoadSignals** → Pool row → filters and scorers.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSignals:
    """Which LoRA adapters an endpoint holds."""

    running: frozenset[str]
    """Adapters with running requests."""
    waiting: frozenset[str]
    """Adapters whose requests wait."""
    max_adapters: int | None
    """How many adapters fit at a time; count, >= 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSignals:
    """One scrape's answer, whole: the next scrape replaces it, nothing edits it.

    None (NaN in a Pool column) means that the endpoint did not say. It never becomes 0: an idle server attracts
    traffic.
    """

    queued_requests: int | None = None
    """Requests accepted but not running; count, >= 0."""
    running_requests: int | None = None
    """Requests in the running batch; count, >= 0."""
    kv_utilization: float | None = None
    """Used / total KV-cache blocks; ratio in [0, 1], not percent."""
    block_size: int | None = None
    """Tokens in one KV-cache block; count, > 0."""
    num_blocks: int | None = None
    """KV-cache blocks of the endpoint, all models together; count, >= 0."""
    lora: LoraSignals | None = None
    """LoRA adapters, where the engine reports them."""
    observed_at: float
    """When the scrape ended; seconds, monotonic."""
