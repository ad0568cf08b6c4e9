"""What comes out of the batch manager."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class FinishReason(StrEnum):
    """Why an answer ended; OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLoad:
    """The load of the server during one iteration, or between two; counts unless said otherwise."""

    iteration: int
    """Number of the iteration, or of the last one when the server is idle."""
    duration_s: float = 0.0
    """How long the iteration takes; seconds, 0 between two."""
    active_requests: int
    """Admitted: scheduled ones, and those that wait for blocks or for their turn."""
    queued_requests: int
    """Accepted but not admitted yet."""
    scheduled_requests: int = 0
    """In this iteration's batch."""
    context_requests: int = 0
    """Those of them that are prefilled."""
    generation_requests: int = 0
    """Those of them that generate."""
    paused_requests: int = 0
    """Paused in this iteration, because blocks ran out."""
    context_tokens: int = 0
    """Prompt tokens computed in this iteration."""
    completed_requests: int = 0
    """Requests whose answer ends with this iteration."""
    new_active_requests: int = 0
    """Requests admitted for this iteration."""
    queue_latency_s: float = 0.0
    """How long those had been queued, together; seconds."""
    used_blocks: int
    """KV-cache blocks that requests hold."""
    reused_blocks: int
    """Prompt blocks found in the cache since the server started."""
    missed_blocks: int
    """Full prompt blocks computed since the server started."""
    new_blocks: int
    """KV-cache blocks handed out empty since the server started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """One iteration, planned: it begins now and what it brings is there `duration_s` later."""

    duration_s: float
    """Until its tokens exist and the next iteration may begin; seconds, > 0."""
    emitted: tuple[str, ...]
    """Ids of the requests that get one token each at its end, oldest first."""
    finished: Mapping[str, FinishReason]
    """Those of them whose token is the last."""
    cached_tokens: Mapping[str, int]
    """For each request that starts, or starts again, in this iteration: its prompt tokens found in the KV cache."""
    load: BatchLoad
    """The load while it runs."""

    def next_start(self, end: float, now: float) -> float:
        """Return when the next iteration begins, if this one was to end at `end` and it is `now`; seconds of one clock.

        It follows at once, however late the timer was: rounding must not add up. But a process that fell behind by a
        whole iteration would make up for it in a burst, faster than any server.
        """
        return end if now - end < self.duration_s else now
