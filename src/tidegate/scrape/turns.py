"""Turns at the event loop, for work that comes in crowds: one piece in each round of the loop.

Between two pieces the loop gets to its sockets and to everything else that is ready. Without turns a hundred answers
that have come together are parsed in one go, and a pick that is asked for meanwhile waits for all of them.
"""

import asyncio
from collections import deque


class Turns:
    """Gives each task its turn: those that would finish something before those that would begin, then the first come.

    What has begun goes first, since it holds what it has received until it is done. A turn is not held: whoever has
    had it may wait for something else at once, and delays nobody.
    """

    def __init__(self) -> None:
        self._finishing: deque[asyncio.Future[None]] = deque()
        self._beginning: deque[asyncio.Future[None]] = deque()
        self._giving = False

    async def to_begin(self) -> None:
        """Wait for the turn to begin something."""
        await self._join(self._beginning)

    async def to_finish(self) -> None:
        """Wait for the turn to finish what has begun."""
        await self._join(self._finishing)

    async def _join(self, queue: deque[asyncio.Future[None]]) -> None:
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        if not self._giving:
            self._give()
        await turn

    def _give(self) -> None:
        """Give the next turn, and come back in the next round of the loop."""
        self._giving = False
        for queue in (self._finishing, self._beginning):
            while queue:
                turn = queue.popleft()
                if not turn.done():  # cancelled while it waited
                    turn.set_result(None)
                    self._giving = True
                    asyncio.get_running_loop().call_soon(self._give)
                    return
