"""`tidegate up` for weeks: cleaners of /tmp take what has not changed for days."""

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from processes import Gateway, gateway, until
from servers import model_server


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give what the test starts a short TMPDIR of its own."""
    with tempfile.TemporaryDirectory(prefix="up-") as directory:
        monkeypatch.setenv("TMPDIR", directory)
        yield Path(directory)


async def answers(up: Gateway) -> None:
    """Wait until a request is answered."""

    async def is_answered() -> bool:
        try:
            async with aiohttp.request("POST", up.url) as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    await until(is_answered, within_s=60)  # one that has just started may be silent for 15 s


async def test_its_directory_is_locked_which_cleaners_respect(temporary: Path) -> None:
    async with model_server("a") as server, gateway(server.url):
        [directory] = temporary.iterdir()
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)
    assert not list(temporary.iterdir())


async def test_without_its_files_envoy_starts_again_and_has_its_endpoints(temporary: Path) -> None:
    async with model_server("a") as server, gateway(server.url) as up:
        await up.ready()
        for file in temporary.rglob("*.json"):
            file.unlink()
        os.kill(up.child("envoy "), signal.SIGKILL)
        await up.said("envoy exited with SIGKILL; starting it again")
        await up.said(r"envoy cannot be started: \S+/endpoints.json: No such file or directory; starting it again")
        await answers(up)


async def test_without_its_directory_both_start_again(temporary: Path) -> None:
    async with model_server("a") as server, gateway(server.url) as up:
        await up.ready()
        [directory] = temporary.iterdir()
        shutil.rmtree(directory)
        await up.said("picker does not answer; starting it again")
        await up.said("envoy does not answer; starting it again")
        await answers(up)
        await up.ready()

        async def is_told() -> bool:
            return (await up.pool()).get("outcomes", {}).get("answered", 0) > 0

        await until(is_told)
    assert not list(temporary.iterdir())
