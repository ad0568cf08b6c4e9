"""Real Tritons, as examples/triton/serve.py runs them, and what their metrics say."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from processes import Tidegate, alive, children, free_port, tidegate, until

TEST_MODELS = Path(__file__).resolve().parent / "triton_models"
SERVE = Path(__file__).resolve().parents[1] / "examples" / "triton" / "serve.py"
UNAVAILABLE = 69
"""Exit status of serve.py where Triton cannot run; its last line says why."""
INSTALL_S = 300.0
START_S = 60.0

Ports = tuple[int, int, int]
"""HTTP, gRPC, metrics."""
Labels = frozenset[tuple[str, str]]
Exposition = dict[tuple[str, Labels], float]


@dataclass(frozen=True)
class Triton:
    """A running tritonserver."""

    name: str
    url: str
    grpc: str
    """Host and port."""
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

    def kill(self) -> None:
        """Let it and its models' processes die at once, as if the machine had gone."""
        for pid in [self.pid, *children(self.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


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


def repository(directory: Path, *models: str) -> Path:
    """Return a new model repository with these models, of the tests or of the example."""
    home = directory / "models"
    home.mkdir()
    for model in models:
        places = (TEST_MODELS / model, SERVE.parent / "models" / model)
        (home / model).symlink_to(next(place for place in places if place.exists()))
    return home


def free_ports() -> Ports:
    """Return three ports of loopback that are free now."""
    return free_port(), free_port(), free_port()


@contextlib.asynccontextmanager
async def tritons(directory: Path, *names: str, options: Sequence[str] = ()) -> AsyncIterator[list[Triton]]:
    """Run real Tritons until the end of the block, and check that they leave no process behind."""
    async with contextlib.AsyncExitStack() as stack:
        await prepare_triton()
        started = [await stack.enter_async_context(_triton(directory, name, options, free_ports())) for name in names]
        for triton in started:
            await until(triton.ready, within_s=START_S)
        yield started


@contextlib.asynccontextmanager
async def triton_at(directory: Path, ports: Ports, *, options: Sequence[str] = ()) -> AsyncIterator[Triton]:
    """Run one on given ports, as `tritons` does."""
    await prepare_triton()
    async with _triton(directory, f"at-{ports[0]}", options, ports) as triton:
        await until(triton.ready, within_s=START_S)
        yield triton


@contextlib.asynccontextmanager
async def frontend(triton: Triton | Ports, *options: str) -> AsyncIterator[tuple[Tidegate, str]]:
    """Run `tidegate frontend` before a Triton, there or not; yields it with its URL once it listens."""
    grpc, metrics = (
        (triton.grpc, triton.metrics_url)
        if isinstance(triton, Triton)
        else (f"127.0.0.1:{triton[1]}", f"http://127.0.0.1:{triton[2]}/metrics")
    )
    arguments = ("--triton", grpc, "--metrics", metrics, "--port", "0", *options)
    async with tidegate("frontend", *arguments) as process:
        yield process, (await process.said(r"(http://127\.0\.0\.1:\d+)/v1"))[1]


@contextlib.asynccontextmanager
async def _triton(directory: Path, name: str, options: Sequence[str], ports: Ports) -> AsyncIterator[Triton]:
    http, grpc, metrics = ports
    arguments = (f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}")
    path = directory / f"{name}.log"
    with path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(SERVE), "--name", name, *arguments, *options), stdout=log, stderr=STDOUT
        )
    triton = Triton(
        name,
        url=f"http://127.0.0.1:{http}",
        grpc=f"127.0.0.1:{grpc}",
        metrics_url=f"http://127.0.0.1:{metrics}/metrics",
        pid=process.pid,
        log=path,
    )
    try:
        yield triton
        family = [process.pid, *children(process.pid)]
    finally:
        with contextlib.suppress(ProcessLookupError):
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
