"""Who gets a turn at the event loop, and when."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable

from tidegate.scrape.turns import ROUNDS, Turns


@contextlib.asynccontextmanager
async def counting_rounds() -> AsyncIterator[Callable[[], int]]:
    """Count the rounds of the event loop."""
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1

    counting = asyncio.create_task(count())
    try:
        yield lambda: rounds
    finally:
        counting.cancel()


async def test_between_two_turns_the_loop_makes_some_rounds() -> None:
    turns = Turns()
    at_round: list[int] = []

    async def work(rounds: Callable[[], int]) -> None:
        await turns.to_begin()
        at_round.append(rounds())
        await turns.to_finish()
        at_round.append(rounds())

    async with counting_rounds() as rounds:
        await asyncio.gather(*(work(rounds) for _ in range(50)))

    assert len(at_round) == 100
    assert min(later - earlier for earlier, later in itertools.pairwise(at_round)) == ROUNDS


async def test_a_lone_task_need_not_wait() -> None:
    turns = Turns()

    async with counting_rounds() as rounds:
        await asyncio.sleep(0)
        before = rounds()
        await turns.to_begin()

        assert rounds() == before


async def test_what_has_begun_is_finished_first_and_otherwise_the_first_come_are_the_first() -> None:
    turns = Turns()
    served: list[str] = []

    async def begin(name: str) -> None:
        await turns.to_begin()
        served.append(name)

    async def finish(name: str) -> None:
        await turns.to_finish()
        served.append(name)

    async with asyncio.TaskGroup() as tasks:
        for name in "abc":
            tasks.create_task(begin(name))
        for name in "xy":
            tasks.create_task(finish(name))

    assert served == ["a", "x", "y", "b", "c"]  # nobody waited when a came


async def test_who_gives_up_loses_nobody_elses_turn() -> None:
    turns = Turns()
    waiting = [asyncio.create_task(turns.to_begin()) for _ in range(10)]

    await asyncio.sleep(0)
    for i in (1, 2, 9):
        waiting[i].cancel()
    async with asyncio.timeout(5):
        await asyncio.wait(waiting)

    assert [task.cancelled() for task in waiting] == [i in (1, 2, 9) for i in range(10)]
    async with asyncio.timeout(5):
        await turns.to_begin()
