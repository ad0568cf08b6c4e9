"""Simulated model servers as processes of their own, on free ports."""

import asyncio
import contextlib
import re
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tidegate.gateway.process import Program, own_command, running, stop
from tidegate.protocol.errors import TidegateError

START_TIMEOUT_S = 30.0

_SERVING = re.compile(rb"on (http://\S+)")


@contextlib.asynccontextmanager
async def simulated_fleet(count: int, directory: Path, options: Sequence[str] = ()) -> AsyncIterator[list[str]]:
    """Run `count` servers (`tidegate sim` with `options`); yields their URLs once all of them listen."""
    programs = [_program(number, directory, options) for number in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(running(program, stdout=PIPE)) for program in programs]
        try:
            lines = [
                await first_line(program, process, _SERVING)
                for program, process in zip(programs, processes, strict=True)
            ]
            yield [line[1].decode() for line in lines]
        finally:
            # All at once: one after the other, many servers would take long to end.
            await asyncio.gather(*(stop(process) for process in processes))


def _program(number: int, directory: Path, options: Sequence[str]) -> Program:
    name = f"sim-{number}"
    argv = own_command("sim", "--port", "0", "--name", name, *options)
    return Program(name, argv, directory / f"{name}.log")


async def first_line(program: Program, process: Process, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
    """Wait for the first line a program says; TidegateError when it does not match."""
    line = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_TIMEOUT_S):
            line = await process.stdout.readline() if process.stdout else b""
    if (found := pattern.search(line)) is None:
        raise TidegateError(f"{program.name} did not start: {program.last_words()}")
    return found
