"""Iterations follow the clock: they neither drift nor burst."""

import asyncio
import contextlib
import itertools
import time

import pytest

from frontends import MODEL
from tidegate.frontend.generator import GenerationError, GenerationRequest
from tidegate.frontend.metrics import TritonMetrics
from tidegate.frontend.simulated import SimulatedGenerator
from tidegate.simulator.batch_manager import BatchManager
from tidegate.simulator.cost import CostModel
from tidegate.simulator.iteration import Iteration
from tidegate.simulator.limits import Limits

ITERATION_S = 0.05
EVEN = CostModel(
    iteration_base_s=ITERATION_S,
    prefill_s_per_token=0,
    decode_s_per_request=0,
    attention_s_per_cached_token=0,
    between_steps_s=0,
)
REQUEST = GenerationRequest(model=MODEL, prompt="tide", max_tokens=1000)


class RecordingManager(BatchManager):
    """Remembers when each iteration began."""

    def __init__(self) -> None:
        super().__init__(Limits(), EVEN)
        self.starts: list[float] = []

    def step(self, now: float) -> Iteration | None:
        iteration = super().step(now)
        if iteration is not None:
            self.starts.append(now)
        return iteration


async def test_a_late_timer_delays_no_later_iteration_and_a_stall_is_not_made_up_for() -> None:
    manager = RecordingManager()
    generator = SimulatedGenerator(manager, TritonMetrics(manager.limits, model=MODEL), model=MODEL)
    driver = asyncio.create_task(generator.run())
    await asyncio.sleep(0)  # lets it begin
    async with contextlib.aclosing(generator.generate(REQUEST)) as pieces:
        for _ in range(6):
            await anext(pieces)
        time.sleep(10 * ITERATION_S)  # noqa: ASYNC251 - the whole process stalls
        for _ in range(6):
            await anext(pieces)
    driver.cancel()
    await asyncio.gather(driver, return_exceptions=True)
    gaps = [later - earlier for earlier, later in itertools.pairwise(manager.starts)]
    assert max(gaps) > 9 * ITERATION_S
    assert any(gap == pytest.approx(ITERATION_S, abs=1e-9) for gap in gaps)
    assert min(gaps) > ITERATION_S - 1e-9


async def test_a_generator_that_does_not_run_takes_no_requests() -> None:
    manager = RecordingManager()
    generator = SimulatedGenerator(manager, TritonMetrics(manager.limits, model=MODEL), model=MODEL)
    with pytest.raises(GenerationError, match="not started"):
        await anext(generator.generate(REQUEST))
    assert manager.queued_requests == 0
