"""In-flight batching: which requests run in the next iteration, and what comes of it.

    submit → queued → waiting (active, holds no blocks) ⇄ running (holds blocks) → finished

The model is TensorRT-LLM's executor: first come, first served; at most `max_batch_size` requests are active; an
iteration first serves every generating request, then prefills prompts, in chunks, with the token budget that is left.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from tidegate.simulator.cost import CostModel
from tidegate.simulator.iteration import BatchLoad, FinishReason, Iteration
from tidegate.simulator.kv_cache import BlockTable, KvCache
from tidegate.simulator.limits import CapacityPolicy, Limits
from tidegate.simulator.request import Request, RequestTooLongError


@dataclass(slots=True, eq=False)
class _Sequence:
    """One request on its way through the batch manager."""

    request: Request
    submitted_at: float
    answer_tokens: int
    emitted_tokens: int = 0
    kv_tokens: int = 0
    """Tokens in the KV cache; count."""
    pending_tokens: int = 0
    """Tokens still to prefill before it generates; count."""
    table: BlockTable = field(default_factory=BlockTable)

    @property
    def context_tokens(self) -> int:
        """Tokens to have in the KV cache before the next one: a paused request recomputes its answer so far."""
        return self.request.prompt_tokens + self.emitted_tokens

    @property
    def max_length(self) -> int:
        return self.request.prompt_tokens + self.request.max_tokens


@dataclass(slots=True)
class _Plan:
    """The batch of one iteration while it is put together."""

    budget: int
    """Tokens that may still be scheduled; count."""
    generating: list[_Sequence] = field(default_factory=list)
    prefilling: list[tuple[_Sequence, int]] = field(default_factory=list)
    """Each with the length of its chunk; count, > 0."""
    cached_tokens: dict[str, int] = field(default_factory=dict)
    paused: int = 0
    new_active: int = 0
    queue_latency_s: float = 0.0

    @property
    def context_tokens(self) -> int:
        return sum(chunk for _, chunk in self.prefilling)


class BatchManager:
    """A model server without a clock: whoever drives it says what time it is and waits for each iteration to end.

    Between two calls of `step` the driver may submit and cancel as it likes; both apply to the next iteration.
    """

    def __init__(self, limits: Limits, cost: CostModel) -> None:
        self.limits = limits
        self.cost = cost
        self.cache = KvCache(limits.num_blocks, limits.tokens_per_block)
        self._queued: OrderedDict[str, _Sequence] = OrderedDict()
        self._waiting: OrderedDict[str, _Sequence] = OrderedDict()
        self._running: OrderedDict[str, _Sequence] = OrderedDict()  # in order of age, like the two before
        self._promised_blocks = 0  # what the running requests may still ask for; guaranteed-no-evict only
        self._iterations = 0

    @property
    def queued_requests(self) -> int:
        """Requests accepted but not admitted yet; count."""
        return len(self._queued)

    @property
    def active_requests(self) -> int:
        """Requests admitted and not finished; count."""
        return len(self._waiting) + len(self._running)

    def submit(self, request: Request, now: float) -> None:
        """Queue a request at time `now`, in seconds.

        Raises RequestTooLongError when it could never fit, ValueError when its id is taken or a count is not positive.
        """
        if request.prompt_tokens < 1 or request.answer_tokens < 1:
            raise ValueError(f"request {request.request_id!r} needs at least one prompt token and one to generate")
        if any(request.request_id in place for place in (self._queued, self._waiting, self._running)):
            raise ValueError(f"request id {request.request_id!r} is taken")
        sequence = _Sequence(request=request, submitted_at=now, answer_tokens=request.answer_tokens)
        if self.cache.blocks_for(sequence.max_length) > self.limits.num_blocks:
            raise RequestTooLongError(
                f"{request.prompt_tokens} prompt tokens and {request.max_tokens} to generate exceed this server's "
                f"KV cache of {self.limits.kv_tokens} tokens. Shorten the prompt or lower max_tokens"
            )
        self._queued[request.request_id] = sequence

    def cancel(self, request_id: str) -> bool:
        """Drop a request wherever it is and free its blocks; False when there is none, or it has finished."""
        if (sequence := self._running.pop(request_id, None)) is not None:
            self._release(sequence)
            return True
        return self._waiting.pop(request_id, None) is not None or self._queued.pop(request_id, None) is not None

    def step(self, now: float) -> Iteration | None:
        """Begin the next iteration at time `now`, in seconds; None when there is nothing to do.

        Its outcome is already applied on return, so call again only once it has ended.
        """
        plan = _Plan(budget=self.limits.max_tokens_per_iteration)
        self._admit(plan, now)
        if not self.active_requests:
            return None
        self._plan_generation(plan)
        self._plan_prefill(plan)
        if not plan.paused:  # Whoever was just paused needs the room first.
            self._plan_starts(plan)
        return self._run(plan)

    def load(self) -> BatchLoad:
        """Return the load between two iterations: nothing is scheduled."""
        return BatchLoad(
            iteration=self._iterations,
            active_requests=self.active_requests,
            queued_requests=self.queued_requests,
            used_blocks=self.cache.used_blocks,
            reused_blocks=self.cache.reused_blocks,
            missed_blocks=self.cache.missed_blocks,
            new_blocks=self.cache.new_blocks,
        )

    def _admit(self, plan: _Plan, now: float) -> None:
        while self._queued and self.active_requests < self.limits.max_batch_size:
            request_id, sequence = self._queued.popitem(last=False)
            self._waiting[request_id] = sequence
            plan.new_active += 1
            plan.queue_latency_s += now - sequence.submitted_at

    def _plan_generation(self, plan: _Plan) -> None:
        ready = [sequence for sequence in self._running.values() if not sequence.pending_tokens]
        for sequence in ready[: plan.budget]:
            if self._make_room(sequence, plan):
                plan.generating.append(sequence)
                plan.budget -= 1

    def _make_room(self, sequence: _Sequence, plan: _Plan) -> bool:
        """Give a generating request the block for its next token, at the expense of the youngest if need be."""
        if sequence.request.request_id not in self._running:
            return False  # paused a moment ago, for an older one
        blocks = self.cache.blocks_for(sequence.kv_tokens + 1)
        while not self._grow(sequence, blocks):
            victim = self._running[next(reversed(self._running))]
            self._pause(victim)
            plan.paused += 1
            if victim is sequence:
                return False
        return True

    def _plan_prefill(self, plan: _Plan) -> None:
        for sequence in self._running.values():
            if plan.budget and sequence.pending_tokens:
                self._plan_chunk(sequence, plan)

    def _plan_starts(self, plan: _Plan) -> None:
        while self._waiting and plan.budget:
            request_id, sequence = next(iter(self._waiting.items()))
            if not self._fits(sequence):
                return  # Nobody overtakes: a long request would starve.
            del self._waiting[request_id]
            self._start(sequence)
            plan.cached_tokens[request_id] = sequence.kv_tokens
            self._plan_chunk(sequence, plan)

    def _plan_chunk(self, sequence: _Sequence, plan: _Plan) -> None:
        chunk = min(sequence.pending_tokens, plan.budget)
        plan.prefilling.append((sequence, chunk))
        plan.budget -= chunk

    def _fits(self, sequence: _Sequence) -> bool:
        if self.limits.capacity_policy is CapacityPolicy.GUARANTEED_NO_EVICT:
            tokens = sequence.max_length
        else:
            tokens = sequence.context_tokens + 1
        needed = self.cache.blocks_for(tokens) - self.cache.count_held(self._reusable(sequence))
        return needed <= self.cache.available_blocks - self._promised_blocks

    def _reusable(self, sequence: _Sequence) -> tuple[int, ...]:
        """The prompt's blocks that need not be computed. The last token always is: it brings the next one."""
        blocks = (sequence.context_tokens - 1) // self.limits.tokens_per_block
        return sequence.request.block_hashes[:blocks]

    def _start(self, sequence: _Sequence) -> None:
        sequence.table = self.cache.open(self._reusable(sequence))
        sequence.kv_tokens = len(sequence.table.shared) * self.limits.tokens_per_block
        sequence.pending_tokens = sequence.context_tokens - sequence.kv_tokens
        self._promised_blocks += self._unclaimed_blocks(sequence)
        self._grow(sequence, self.cache.blocks_for(sequence.context_tokens))
        self._running[sequence.request.request_id] = sequence

    def _unclaimed_blocks(self, sequence: _Sequence) -> int:
        """Blocks promised to a running request that it does not hold yet."""
        if self.limits.capacity_policy is not CapacityPolicy.GUARANTEED_NO_EVICT:
            return 0
        return self.cache.blocks_for(sequence.max_length) - sequence.table.blocks

    def _grow(self, sequence: _Sequence, blocks: int) -> bool:
        unclaimed = self._unclaimed_blocks(sequence)
        grown = self.cache.grow(sequence.table, blocks)
        self._promised_blocks += self._unclaimed_blocks(sequence) - unclaimed
        return grown

    def _release(self, sequence: _Sequence) -> None:
        self._promised_blocks -= self._unclaimed_blocks(sequence)
        self.cache.release(sequence.table)

    def _pause(self, sequence: _Sequence) -> None:
        """Take a request's blocks; it goes back to the head of those that wait, for it is older than they are."""
        request_id = sequence.request.request_id
        del self._running[request_id]
        self._release(sequence)
        sequence.kv_tokens = sequence.pending_tokens = 0
        self._waiting[request_id] = sequence
        self._waiting.move_to_end(request_id, last=False)

    def _run(self, plan: _Plan) -> Iteration:
        self._iterations += 1
        duration_s = self.cost.iteration_s(
            context_tokens=plan.context_tokens,
            generating_requests=len(plan.generating),
            cached_tokens=sum(sequence.kv_tokens for sequence in plan.generating)
            + sum(sequence.kv_tokens for sequence, _ in plan.prefilling),
        )
        used_blocks = self.cache.used_blocks
        active, queued = self.active_requests, self.queued_requests
        emitting = self._advance(plan)
        finished = self._finish(emitting)
        return Iteration(
            duration_s=duration_s,
            emitted=tuple(sequence.request.request_id for sequence in emitting),
            finished=finished,
            cached_tokens=plan.cached_tokens,
            load=BatchLoad(
                iteration=self._iterations,
                duration_s=duration_s,
                active_requests=active,
                queued_requests=queued,
                scheduled_requests=len(plan.generating) + len(plan.prefilling),
                context_requests=len(plan.prefilling),
                generation_requests=len(plan.generating),
                paused_requests=plan.paused,
                context_tokens=plan.context_tokens,
                completed_requests=len(finished),
                new_active_requests=plan.new_active,
                queue_latency_s=plan.queue_latency_s,
                used_blocks=used_blocks,
                reused_blocks=self.cache.reused_blocks,
                missed_blocks=self.cache.missed_blocks,
                new_blocks=self.cache.new_blocks,
            ),
        )

    def _advance(self, plan: _Plan) -> list[_Sequence]:
        """Apply what the iteration computes; return the requests that get a token."""
        emitting = list(plan.generating)
        for sequence in emitting:
            sequence.kv_tokens += 1
        for sequence, chunk in plan.prefilling:
            sequence.kv_tokens += chunk
            sequence.pending_tokens -= chunk
            if not sequence.pending_tokens:
                self.cache.share(sequence.table, sequence.request.block_hashes)
                emitting.append(sequence)
        return emitting

    def _finish(self, emitting: list[_Sequence]) -> dict[str, FinishReason]:
        finished: dict[str, FinishReason] = {}
        for sequence in emitting:
            sequence.emitted_tokens += 1
            if sequence.emitted_tokens == sequence.answer_tokens:
                request = sequence.request
                stopped = sequence.answer_tokens < request.max_tokens
                finished[request.request_id] = FinishReason.STOP if stopped else FinishReason.LENGTH
                del self._running[request.request_id]
                self._release(sequence)
        return finished
