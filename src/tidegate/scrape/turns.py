"""Turns at the event loop, for work that comes in crowds: one piece, then some rounds of the loop for all else.

Without turns a hundred answers that have come together are parsed in one go, and a pick that is asked for meanwhile
waits for all of them.
"""

import asyncio
from collections import deque

ROUNDS = 8
"""From one turn to the next: rounds of the event loop. A pick takes several of them, from its gRPC message to the
answer, and would meet a piece of work in each."""


class Turns:
    """Gives each task its turn: those that would finish something before those that would begin, then the first come.

    What has begun goes first, since it holds what it has received until it is done. A turn is not held: whoever has
    had it may wait for something else at once, and delays nobody.
    """

    def __init__(self) -> None:
        self._finishing: deque[asyncio.Future[None]] = deque()
        self._beginning: deque[asyncio.Future[None]] = deque()
        self._pausing = False

    async def to_begin(self) -> None:
        """Wait for the turn to begin something."""
        await self._join(self._beginning)

    async def to_finish(self) -> None:
        """Wait for the turn to finish what has begun."""
        await self._join(self._finishing)

    async def _join(self, queue: deque[asyncio.Future[None]]) -> None:
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        if not self._pausing:
            self._give()
        await turn

    def _give(self) -> None:
        """Give the next turn, if anybody waits for one."""
        for queue in (self._finishing, self._beginning):
            while queue:
                turn = queue.popleft()
                if not turn.done():  # cancelled while it waited
                    turn.set_result(None)
                    self._pause(ROUNDS)
                    return

    def _pause(self, rounds: int) -> None:
        """Give no turn for so many rounds of the loop, then the next."""
        self._pausing = rounds > 0
        if rounds:
            asyncio.get_running_loop().call_soon(self._pause, rounds - 1)
        else:
            self._give()
