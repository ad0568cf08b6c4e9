"""Whatever is submitted and cancelled, in whatever order, these hold."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tidegate.simulator.batch_manager import BatchManager
from tidegate.simulator.cost import CostModel
from tidegate.simulator.iteration import Iteration
from tidegate.simulator.kv_cache import hash_blocks
from tidegate.simulator.limits import CapacityPolicy, Limits
from tidegate.simulator.request import Request, RequestTooLongError

LIMITS = st.builds(
    Limits,
    max_batch_size=st.integers(1, 5),
    max_tokens_per_iteration=st.integers(1, 24),
    num_blocks=st.integers(1, 12),
    tokens_per_block=st.integers(1, 5),
    capacity_policy=st.sampled_from(CapacityPolicy),
)
PROMPTS = st.lists(st.integers(0, 1), min_size=1, max_size=24)  # Two token ids: prefixes collide often.


def request_of(number: int, prompt: list[int], max_tokens: int, stop: int | None, limits: Limits) -> Request:
    return Request(
        request_id=str(number),
        prompt_tokens=len(prompt),
        block_hashes=hash_blocks(prompt, limits.tokens_per_block),
        max_tokens=max_tokens,
        stop_after=stop,
    )


class BatchManagerMachine(RuleBasedStateMachine):
    """Submits, cancels and steps at random, and keeps its own account of who is owed how many tokens."""

    @initialize(limits=LIMITS)
    def start(self, limits: Limits) -> None:
        self.limits = limits
        self.manager = BatchManager(limits, CostModel())
        self.owed: dict[str, int] = {}
        self.submitted = 0
        self.now = 0.0

    @rule(prompt=PROMPTS, max_tokens=st.integers(1, 20), stop=st.none() | st.integers(1, 20))
    def submit(self, prompt: list[int], max_tokens: int, stop: int | None) -> None:
        self.submitted += 1
        request = request_of(self.submitted, prompt, max_tokens, stop, self.limits)
        fits = len(prompt) + max_tokens <= self.limits.kv_tokens
        try:
            self.manager.submit(request, self.now)
        except RequestTooLongError:
            assert not fits
        else:
            assert fits
            self.owed[request.request_id] = request.answer_tokens

    @precondition(lambda self: self.owed)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.owed)))
        assert self.manager.cancel(request_id)
        del self.owed[request_id]

    @rule()
    def step(self) -> None:
        iteration = self.manager.step(self.now)
        assert (iteration is None) == (not self.owed)
        if iteration is not None:
            self.now += iteration.duration_s
            self.account(iteration)

    def account(self, iteration: Iteration) -> None:
        load = iteration.load
        assert load.scheduled_requests == load.context_requests + load.generation_requests
        assert 1 <= load.scheduled_requests <= load.active_requests <= self.limits.max_batch_size
        assert load.context_tokens + load.generation_requests <= self.limits.max_tokens_per_iteration
        assert load.used_blocks <= self.limits.num_blocks
        assert load.completed_requests == len(iteration.finished)
        if self.limits.capacity_policy is CapacityPolicy.GUARANTEED_NO_EVICT:
            assert load.paused_requests == 0
        if load.paused_requests:  # Room was just short: whoever starts now would be paused next.
            assert not iteration.cached_tokens
        assert len(set(iteration.emitted)) == len(iteration.emitted)
        for request_id in iteration.emitted:
            self.owed[request_id] -= 1
            assert (self.owed[request_id] == 0) == (request_id in iteration.finished)
        for request_id in iteration.finished:
            del self.owed[request_id]

    @invariant()
    def blocks_are_conserved(self) -> None:
        cache = self.manager.cache
        assert cache.used_blocks + cache.cached_blocks + cache.free_blocks == self.limits.num_blocks
        assert min(cache.used_blocks, cache.cached_blocks, cache.free_blocks) >= 0

    @invariant()
    def every_request_is_somewhere(self) -> None:
        assert self.manager.active_requests + self.manager.queued_requests == len(self.owed)

    def teardown(self) -> None:
        """Nobody starves: everyone still owed a token gets it, and then nothing is held."""
        if not hasattr(self, "manager"):
            return
        # Each iteration computes something for the oldest request, which may be prefilled again after each pause.
        for _ in range(20_000):
            if not self.owed:
                break
            self.step()
        assert not self.owed
        assert self.manager.step(self.now) is None
        assert self.manager.cache.used_blocks == 0


TestBatchManager = BatchManagerMachine.TestCase
TestBatchManager.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(LIMITS, st.lists(st.tuples(PROMPTS, st.integers(1, 8)), min_size=1, max_size=8))
@settings(deadline=None)
def test_the_same_requests_give_the_same_iterations(limits: Limits, wanted: list[tuple[list[int], int]]) -> None:
    def run() -> list[Iteration]:
        manager = BatchManager(limits, CostModel())
        for number, (prompt, max_tokens) in enumerate(wanted):
            if len(prompt) + max_tokens <= limits.kv_tokens:
                manager.submit(request_of(number, prompt, max_tokens, None, limits), 0.0)
        iterations = []
        while (iteration := manager.step(0.0)) is not None:
            iterations.append(iteration)
        return iterations

    assert run() == run()


@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(0, 3), max_size=30), st.integers(1, 5))
def test_block_hashes_are_equal_exactly_as_far_as_the_prompts_are(left: list[int], right: list[int], size: int) -> None:
    pairs = zip(hash_blocks(left, size), hash_blocks(right, size), strict=False)
    for index, (a, b) in enumerate(pairs):
        end = (index + 1) * size
        assert (a == b) == (left[:end] == right[:end])
    assert len(hash_blocks(left, size)) == len(left) // size
