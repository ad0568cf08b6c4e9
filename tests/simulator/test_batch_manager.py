"""What the batch manager does with hand-made requests; test_batch_manager_properties has the arbitrary ones."""

import pytest

from tidegate.protocol.errors import ConfigError
from tidegate.simulator.batch_manager import BatchManager
from tidegate.simulator.cost import CostModel
from tidegate.simulator.iteration import FinishReason, Iteration
from tidegate.simulator.kv_cache import hash_blocks
from tidegate.simulator.limits import CapacityPolicy, Limits
from tidegate.simulator.request import Request, RequestTooLongError

COST = CostModel()


def manager_of(
    *, batch: int = 4, tokens: int = 64, blocks: int = 32, block: int = 4, policy: str = "guaranteed-no-evict"
) -> BatchManager:
    limits = Limits(
        max_batch_size=batch,
        max_tokens_per_iteration=tokens,
        num_blocks=blocks,
        tokens_per_block=block,
        capacity_policy=CapacityPolicy(policy),
    )
    return BatchManager(limits, COST)


def request_of(
    name: str, prompt: int = 8, answer: int = 4, *, like: int | None = None, stop: int | None = None
) -> Request:
    """A request whose prompt is all its own, or begins as that of every request `like` the same number."""
    own = int.from_bytes(name.encode())
    tokens = [own, *range(prompt - 1)] if like is None else [like] * prompt
    hashes = hash_blocks(tokens, 4)
    return Request(request_id=name, prompt_tokens=prompt, block_hashes=hashes, max_tokens=answer, stop_after=stop)


def run(manager: BatchManager, steps: int = 10_000) -> list[Iteration]:
    """Step until the manager is idle."""
    iterations = []
    for now in range(steps):
        iteration = manager.step(float(now))
        if iteration is None:
            return iterations
        iterations.append(iteration)
    raise AssertionError(f"still busy after {steps} iterations")


def test_nothing_runs_when_idle() -> None:
    assert manager_of().step(0.0) is None


def test_a_request_gets_exactly_its_tokens_one_an_iteration_and_ends_by_length() -> None:
    manager = manager_of()
    manager.submit(request_of("a", answer=3), 0.0)
    iterations = run(manager)
    assert [iteration.emitted for iteration in iterations] == [("a",)] * 3
    assert [dict(iteration.finished) for iteration in iterations] == [{}, {}, {"a": FinishReason.LENGTH}]


def test_an_answer_that_ends_by_itself_says_stop() -> None:
    manager = manager_of()
    manager.submit(request_of("a", answer=10, stop=2), 0.0)
    iterations = run(manager)
    assert len(iterations) == 2
    assert iterations[-1].finished == {"a": FinishReason.STOP}


def test_requests_join_a_running_batch() -> None:
    manager = manager_of()
    manager.submit(request_of("a"), 0.0)
    manager.step(0.0)
    manager.submit(request_of("b"), 0.5)
    iteration = manager.step(1.0)
    assert iteration is not None
    assert iteration.emitted == ("a", "b")
    assert (iteration.load.generation_requests, iteration.load.context_requests) == (1, 1)


def test_requests_beyond_the_batch_size_are_queued_outside_active() -> None:
    # TensorRT-LLM issue #3376 shows 1 active, 1 scheduled and 7 queued.
    manager = manager_of(batch=1)
    for name in "abcdefgh":
        manager.submit(request_of(name), 0.0)
    iteration = manager.step(2.0)
    assert iteration is not None
    load = iteration.load
    assert (load.active_requests, load.scheduled_requests, load.queued_requests) == (1, 1, 7)
    assert (load.new_active_requests, load.queue_latency_s) == (1, 2.0)


def test_requests_that_wait_for_blocks_are_active_but_not_scheduled() -> None:
    manager = manager_of(blocks=4)  # 16 tokens: one request of 12 at a time
    for name in "abc":
        manager.submit(request_of(name), 0.0)
    iteration = manager.step(0.0)
    assert iteration is not None
    load = iteration.load
    assert (load.active_requests, load.scheduled_requests, load.queued_requests) == (3, 1, 0)


def test_a_long_prompt_is_prefilled_in_chunks_within_the_token_budget() -> None:
    manager = manager_of(tokens=10)
    manager.submit(request_of("a", prompt=25, answer=1), 0.0)
    iterations = run(manager)
    assert [iteration.load.context_tokens for iteration in iterations] == [10, 10, 5]
    assert [iteration.emitted for iteration in iterations] == [(), (), ("a",)]


def test_generating_requests_are_served_before_a_long_prefill() -> None:
    manager = manager_of(tokens=10)
    manager.submit(request_of("a", answer=9), 0.0)
    manager.step(0.0)
    manager.submit(request_of("b", prompt=30), 0.0)
    iteration = manager.step(1.0)
    assert iteration is not None
    assert iteration.emitted == ("a",)
    assert iteration.load.context_tokens == 9


def test_a_prompt_seen_before_is_not_prefilled_again() -> None:
    manager = manager_of()
    manager.submit(request_of("a", prompt=20, like=7), 0.0)
    first = run(manager)[0]
    manager.submit(request_of("b", prompt=20, like=7), 0.0)
    again = manager.step(0.0)
    assert again is not None
    assert (first.cached_tokens["a"], first.load.context_tokens) == (0, 20)
    # The last token is computed even when its block is known: it brings the first one of the answer.
    assert (again.cached_tokens["b"], again.load.context_tokens) == (16, 4)
    assert again.duration_s < first.duration_s
    assert (again.load.reused_blocks, again.load.missed_blocks) == (4, 4)


def test_a_running_request_shares_its_prompt_without_taking_more_room() -> None:
    manager = manager_of(blocks=32)
    manager.submit(request_of("a", prompt=20, answer=8, like=7), 0.0)
    manager.step(0.0)
    used = manager.cache.used_blocks
    manager.submit(request_of("b", prompt=20, answer=8, like=7), 0.0)
    iteration = manager.step(0.0)
    assert iteration is not None
    assert iteration.cached_tokens == {"b": 16}
    # One block for the end of b's prompt, and one for a's first generated token.
    assert iteration.load.used_blocks == used + 2


def test_least_recently_used_prompts_are_evicted_when_room_is_needed() -> None:
    manager = manager_of(blocks=13)
    for number in (1, 2, 1, 3):  # Each takes 6 blocks, and leaves 5 cached.
        manager.submit(request_of(f"{number}", prompt=20, answer=4, like=number), 0.0)
        run(manager)
    manager.submit(request_of("again", prompt=20, answer=4, like=1), 0.0)
    recent = manager.step(0.0)
    assert recent is not None
    assert recent.cached_tokens["again"] == 16
    run(manager)
    manager.submit(request_of("old", prompt=20, answer=4, like=2), 0.0)
    evicted = manager.step(0.0)
    assert evicted is not None
    assert evicted.cached_tokens["old"] < 16


def test_the_end_of_a_prompt_is_evicted_before_its_beginning() -> None:
    manager = manager_of(blocks=8)
    manager.submit(request_of("a", prompt=20, answer=4, like=1), 0.0)
    run(manager)
    manager.submit(request_of("b", prompt=12, answer=4), 0.0)  # takes 4 blocks where 3 are free
    run(manager)
    manager.submit(request_of("again", prompt=20, answer=4, like=1), 0.0)
    iteration = manager.step(0.0)
    assert iteration is not None
    assert 0 < iteration.cached_tokens["again"] < 20


def test_guaranteed_no_evict_keeps_room_for_the_whole_answer() -> None:
    manager = manager_of(blocks=8)  # 32 tokens; each request may need 20
    for name in "ab":
        manager.submit(request_of(name, prompt=4, answer=16), 0.0)
    iterations = run(manager)
    assert all(iteration.load.paused_requests == 0 for iteration in iterations)
    assert max(iteration.load.scheduled_requests for iteration in iterations) == 1


def test_max_utilization_starts_both_and_pauses_the_younger_when_blocks_run_out() -> None:
    manager = manager_of(blocks=8, policy="max-utilization")
    for name in "ab":
        manager.submit(request_of(name, prompt=4, answer=16), 0.0)
    iterations = run(manager)
    assert max(iteration.load.scheduled_requests for iteration in iterations) == 2
    assert sum(iteration.load.paused_requests for iteration in iterations) >= 1
    tokens = [name for iteration in iterations for name in iteration.emitted]
    assert (tokens.count("a"), tokens.count("b")) == (16, 16)
    # The older one never waits: a token in each of its 16 iterations.
    assert all("a" in iteration.emitted for iteration in iterations[:16])


def test_a_paused_request_recomputes_its_answer_so_far() -> None:
    manager = manager_of(blocks=8, policy="max-utilization")
    for name in "ab":
        manager.submit(request_of(name, prompt=4, answer=16), 0.0)
    iterations = run(manager)
    resumed = next(iteration for iteration in iterations[1:] if "b" in iteration.cached_tokens)
    emitted_before = sum("b" in iteration.emitted for iteration in iterations[: iterations.index(resumed)])
    assert 0 < emitted_before < 16
    assert resumed.load.context_tokens + resumed.cached_tokens["b"] == 4 + emitted_before


def test_a_paused_request_starts_again_before_those_that_waited_behind_it() -> None:
    manager = manager_of(blocks=8, policy="max-utilization")
    for name in "ab":
        manager.submit(request_of(name, prompt=4, answer=24 if name == "a" else 16), 0.0)
    manager.step(0.0)
    manager.submit(request_of("c", prompt=28, answer=4), 0.0)
    iterations = run(manager)
    assert sum(iteration.load.paused_requests for iteration in iterations) >= 1
    starts = [name for iteration in iterations for name in iteration.cached_tokens]
    assert starts[-1] == "c"
    assert "b" in starts


def test_nobody_overtakes_a_long_request_that_waits_for_room() -> None:
    manager = manager_of(blocks=8)
    manager.submit(request_of("first", prompt=12, answer=4), 0.0)
    manager.step(0.0)
    manager.submit(request_of("long", prompt=28, answer=4), 0.0)
    manager.submit(request_of("short", prompt=4, answer=1), 0.0)
    order = [name for iteration in run(manager) for name in iteration.finished]
    assert order == ["first", "long", "short"]


def test_a_request_that_can_never_fit_is_rejected_at_once() -> None:
    manager = manager_of(blocks=4)
    with pytest.raises(
        RequestTooLongError, match="15 prompt tokens and 2 to generate exceed this server's KV cache of 16"
    ):
        manager.submit(request_of("a", prompt=15, answer=2), 0.0)
    manager.submit(request_of("b", prompt=15, answer=1), 0.0)
    assert len(run(manager)) == 1


def test_an_id_in_use_is_refused() -> None:
    manager = manager_of()
    manager.submit(request_of("a"), 0.0)
    with pytest.raises(ValueError, match="'a' is taken"):
        manager.submit(request_of("a"), 0.0)


@pytest.mark.parametrize(("prompt", "answer"), [(0, 1), (1, 0)])
def test_an_empty_prompt_or_answer_is_refused(prompt: int, answer: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        manager_of().submit(request_of("a", prompt=prompt, answer=answer), 0.0)


def test_cancelling_a_running_request_frees_its_blocks_for_the_next() -> None:
    manager = manager_of(blocks=4)
    manager.submit(request_of("a"), 0.0)
    manager.submit(request_of("b"), 0.0)
    manager.step(0.0)
    assert manager.cancel("a")
    iteration = manager.step(1.0)
    assert iteration is not None
    assert iteration.emitted == ("b",)
    assert not manager.cancel("a")


def test_cancelling_what_waits_or_is_queued_removes_it() -> None:
    manager = manager_of(batch=2, blocks=4)
    for name in "abc":
        manager.submit(request_of(name), 0.0)
    manager.step(0.0)
    assert manager.cancel("b")
    assert manager.cancel("c")
    assert {name for iteration in run(manager) for name in iteration.emitted} == {"a"}


def test_an_idle_server_holds_nothing() -> None:
    manager = manager_of()
    manager.submit(request_of("a"), 0.0)
    run(manager)
    load = manager.load()
    assert (load.active_requests, load.queued_requests, load.scheduled_requests, load.used_blocks) == (0, 0, 0, 0)


def test_time_grows_with_each_kind_of_work() -> None:
    def iteration_s(*, context: int = 0, generating: int = 0, cached: int = 0) -> float:
        return COST.iteration_s(context_tokens=context, generating_requests=generating, cached_tokens=cached)

    assert iteration_s() == COST.iteration_base_s + COST.between_steps_s
    assert iteration_s(context=1) - iteration_s() == pytest.approx(COST.prefill_s_per_token)
    assert iteration_s(generating=1) - iteration_s() == pytest.approx(COST.decode_s_per_request)
    assert iteration_s(cached=1000) - iteration_s() == pytest.approx(1000 * COST.attention_s_per_cached_token)


def test_an_iteration_costs_what_its_batch_holds() -> None:
    manager = manager_of()
    manager.submit(request_of("a", prompt=8), 0.0)
    first, second = manager.step(0.0), manager.step(1.0)
    assert first is not None
    assert second is not None
    assert first.duration_s == COST.iteration_s(context_tokens=8, generating_requests=0, cached_tokens=0)
    assert second.duration_s == COST.iteration_s(context_tokens=0, generating_requests=1, cached_tokens=8)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_cost_that_is_no_time_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="prefill_s_per_token"):
        CostModel(prefill_s_per_token=seconds)


def test_a_server_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_blocks: 0 leaves no room"):
        Limits(num_blocks=0)
