"""Processes that are kept running: restarted when they exit or fall silent, and gone when we are."""

import asyncio
import contextlib
import ctypes
import functools
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tidegate.protocol.errors import TidegateError

STOP_GRACE_S = 2.0
"""From SIGTERM to SIGKILL."""
POLL_S = 0.25
START_GRACE_S = 15.0
"""How long a new process may take until it first answers its health check."""
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
STEADY_S = 10.0
"""A process that ran this long restarts without waiting, whatever happened before."""

LAST_WORDS_BYTES = 2000

_PR_SET_PDEATHSIG = 1


def own_command(*arguments: str) -> list[str]:
    """Return the command line of a `tidegate` like this one.

    -P: otherwise Python imports from the current directory first, and a user's random.py there ends the picker.
    """
    return [sys.executable, "-P", "-m", "tidegate", *arguments]


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, and where what it says goes."""

    name: str
    argv: Sequence[str]
    log: Path
    prepare: Callable[[], None] = lambda: None
    """Called before each start: provides the files it needs, which a cleaner of /tmp may have taken."""

    def last_words(self) -> str:
        """Return the last line of its log, for a person who asks why it ended."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - LAST_WORDS_BYTES))
                lines = log.read().decode(errors="replace").split("\n")
        except OSError:
            lines = []
        return next((line.strip() for line in reversed(lines) if line.strip()), "(none)")


@contextlib.asynccontextmanager
async def running(program: Program, *, stdout: int | IO[bytes] | None = None) -> AsyncIterator[Process]:
    """Run a program; on leaving it is stopped, by SIGTERM and then by SIGKILL, and awaited.

    It gets a session of its own, so that a Ctrl-C reaches only us, and a SIGTERM from the kernel when we die.
    Raises TidegateError when it cannot be started.
    """
    try:
        program.prepare()
        with program.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *program.argv,
                stdin=DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=STDOUT if stdout is None else log,
                start_new_session=True,
                preexec_fn=_die_with_parent(),
            )
    except OSError as error:
        place = error.filename or program.argv[0]
        raise TidegateError(f"{program.name} cannot be started: {place}: {error.strerror}") from error
    try:
        yield process
    finally:
        await stop(process)


async def stop(process: Process) -> None:
    """End a process, politely and then not."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_GRACE_S):
            await process.wait()
    except TimeoutError:
        pass
    finally:  # also when we are told to hurry
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class KeptRunning:
    """One program, started again whenever it ends."""

    def __init__(
        self,
        program: Program,
        *,
        healthy: Callable[[], Awaitable[bool]],
        max_silence_s: float,
        say: Callable[[str], None],
    ) -> None:
        """Kill it when `healthy` has not returned True for `max_silence_s`; `say` tells people what happened."""
        self._program = program
        self._healthy = healthy
        self._max_silence_s = max_silence_s
        self._say = say

    async def run(self) -> None:
        """Keep it running until cancelled; it is stopped then. TidegateError when it cannot be started even once."""
        backoff = FIRST_BACKOFF_S
        clock = asyncio.get_running_loop().time
        started = clock()
        problem = await self._run_once()
        while True:
            if clock() - started > STEADY_S:
                backoff = FIRST_BACKOFF_S
            self._say(f"{problem}; starting it again. Its last words: {self._program.last_words()}")
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, MAX_BACKOFF_S)
            started = clock()
            try:
                problem = await self._run_once()
            except TidegateError as error:  # it has run before: its file is being replaced, or memory is short
                problem = str(error)

    async def _run_once(self) -> str:
        """Run it until something is wrong; returns what."""
        async with running(self._program) as process:
            problem = await self._until_ill(process)
            if process.returncode is None:
                process.kill()  # it did not answer us, so it would not answer a SIGTERM
        return f"{self._program.name} {problem}"

    async def _until_ill(self, process: Process) -> str:
        """Return what is wrong, as soon as something is."""
        clock = asyncio.get_running_loop().time
        silent_at = clock() + START_GRACE_S
        while process.returncode is None:
            if await self._answers():
                silent_at = clock() + self._max_silence_s
            elif clock() > silent_at:
                return "does not answer"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await process.wait()
        return f"exited with {_exit_reason(process.returncode)}"

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(max(POLL_S, self._max_silence_s / 2)):
                return await self._healthy()
        except TimeoutError:
            return False


def _exit_reason(returncode: int) -> str:
    return f"status {returncode}" if returncode >= 0 else signal.Signals(-returncode).name


def _die_with_parent() -> Callable[[], object] | None:
    """Return what makes the child get SIGTERM when we die, even by SIGKILL; Linux only."""
    if sys.platform != "linux":
        return None
    return functools.partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, signal.SIGTERM)
