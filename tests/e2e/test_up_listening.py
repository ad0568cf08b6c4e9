"""`tidegate up` says that it listens when requests are answered, and why when it does not."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from processes import gateway
from servers import model_server
from tidegate.gateway import local
from tidegate.gateway.envoy.binary import find_envoy
from tidegate.gateway.process import own_command


@pytest.mark.parametrize("attempt", range(3))
async def test_the_first_request_after_it_says_so_is_answered(attempt: int) -> None:
    async with model_server("a") as server, gateway(server.url) as up, aiohttp.request("POST", up.url) as answer:
        assert answer.status == 200
        assert server.arrived == 1


async def test_it_does_not_wait_for_endpoints_for_ever(tmp_path: Path) -> None:
    empty = tmp_path / "pool.yaml"
    empty.write_text("endpoints: []")
    async with gateway("--endpoints", str(empty)) as up, aiohttp.request("POST", up.url) as answer:
        assert answer.status == 503


async def test_it_says_why_envoy_does_not_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An Envoy that is too old for a filter rejects the listener as this one does, and runs on.
    unable = tmp_path / "envoy"
    unable.write_text(f"""\
#!/bin/sh
sed -i 's/HttpConnectionManager"/NoSuchFilter"/' "$(dirname "$2")/listeners/listeners.json"
exec {find_envoy()} "$@"
""")
    unable.chmod(0o755)
    monkeypatch.setattr(local, "LISTEN_PATIENCE_S", 0.5)
    said: asyncio.Queue[str] = asyncio.Queue()
    with local.working_directory() as directory:
        envoy = local.LocalGateway(
            directory,
            envoy=unable,
            host="127.0.0.1",
            port=0,
            picker_argv=own_command("picker", "http://127.0.0.1:1"),
            steered=True,
            say=said.put_nowait,
        )
        running = asyncio.create_task(envoy.run())
        waiting = asyncio.create_task(envoy.url())
        try:
            message = await asyncio.wait_for(said.get(), 20)
        finally:
            waiting.cancel()
            running.cancel()
            await asyncio.wait([waiting, running])

    assert message.startswith("envoy still does not listen. Its last words: Filesystem config update failure")
    assert "NoSuchFilter" in message
    assert "\n" not in message
