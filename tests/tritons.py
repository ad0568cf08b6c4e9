"""Real Tritons, as examples/triton/serve.py runs them, and what their metrics say."""

import asyncio
import contextlib
import re
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from processes import alive, children, free_port, until

SERVE = Path(__file__).resolve().parents[1] / "examples" / "triton" / "serve.py"
UNAVAILABLE = 69
"""Exit status of serve.py where Triton cannot run; its last line says why."""
INSTALL_S = 300.0
START_S = 60.0

Labels = frozenset[tuple[str, str]]
Exposition = dict[tuple[str, Labels], float]


@dataclass(frozen=True)
class Triton:
    """A running tritonserver."""

    name: str
    url: str
    metrics_url: str
    pid: int
    log: Path
    """What it has said."""

    @property
    def argument(self) -> str:
        """How `tidegate up` is told of it."""
        return f"{self.url},metrics={self.metrics_url}"

    @property
    def endpoint(self) -> str:
        """What the pool calls it."""
        return self.url.removeprefix("http://")

    async def scrape(self) -> Exposition:
        """Return the series of one scrape."""
        async with aiohttp.request("GET", self.metrics_url) as answer:
            return parse(await answer.text())

    async def ready(self) -> bool:
        """Return whether its models are loaded, and its metrics there, which come last."""
        try:
            async with aiohttp.request("GET", f"{self.url}/v2/health/ready") as answer:
                return answer.status == 200 and bool(await self.scrape())
        except aiohttp.ClientConnectionError:
            return False


def parse(text: str) -> Exposition:
    """Return the samples of an exposition by name and labels."""
    lines = re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE)
    return {(name, frozenset(re.findall(r'(\w+)="([^"]*)"', labels))): float(value) for name, labels, value in lines}


async def prepare_triton() -> None:
    """Install Triton where it is not yet; skips the test, and says why, where it cannot run."""
    process = await asyncio.create_subprocess_exec(sys.executable, str(SERVE), "--prepare", stdout=PIPE, stderr=STDOUT)
    async with asyncio.timeout(INSTALL_S):
        said, _ = await process.communicate()
    if process.returncode == UNAVAILABLE:
        pytest.skip(f"NO REAL TRITON WAS TESTED: {said.decode().strip().splitlines()[-1]}")
    assert process.returncode == 0, said.decode()


@contextlib.asynccontextmanager
async def tritons(directory: Path, *names: str, options: Sequence[str] = ()) -> AsyncIterator[list[Triton]]:
    """Run real Tritons until the end of the block, and check that they leave no process behind."""
    await prepare_triton()
    async with contextlib.AsyncExitStack() as stack:
        started = [await stack.enter_async_context(_triton(directory, name, options)) for name in names]
        for triton in started:
            await until(triton.ready, within_s=START_S)
        yield started


@contextlib.asynccontextmanager
async def _triton(directory: Path, name: str, options: Sequence[str]) -> AsyncIterator[Triton]:
    http, grpc, metrics = (free_port() for _ in range(3))
    ports = (f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}")
    path = directory / f"{name}.log"
    with path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(SERVE), "--name", name, *ports, *options), stdout=log, stderr=STDOUT
        )
    try:
        yield Triton(name, f"http://127.0.0.1:{http}", f"http://127.0.0.1:{metrics}/metrics", process.pid, path)
        family = [process.pid, *children(process.pid)]
    finally:
        process.terminate()
        try:
            async with asyncio.timeout(20):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def gone() -> bool:
        return not alive(family)

    await until(gone, within_s=10)
