"""curl in front of `tidegate up`, over every version of HTTP that it and Envoy share."""

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE

import pytest

from clients import MODEL
from processes import gateway

COMPLETION = {"model": MODEL, "prompt": "When is high tide?", "max_tokens": 5}


async def curl(*arguments: str) -> tuple[str, str]:
    """Return the body, and the version of HTTP with the status."""
    process = await asyncio.create_subprocess_exec(
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        "20",
        "-w",
        "\n%{http_version} %{http_code}",
        *arguments,
        stdout=PIPE,
        stderr=PIPE,
    )
    said, complained = await process.communicate()
    assert process.returncode == 0, complained.decode()
    body, _, status = said.decode().rpartition("\n")
    return body, status


@pytest.mark.skipif(shutil.which("curl") is None, reason="NO curl WAS TRIED: there is none on this machine")
async def test_curl_is_answered_over_http_1_and_2_and_asks_to_upgrade_in_vain() -> None:
    async with gateway("--demo", "2") as up:
        await up.ready()
        url = f"{up.url}/v1/completions"
        whole, streamed = json.dumps(COMPLETION), json.dumps({**COMPLETION, "stream": True})
        # Without TLS --http2 only offers to upgrade; a server may go on in 1.1, and Envoy does.
        for option, version in (("--http1.1", "1.1"), ("--http2", "1.1"), ("--http2-prior-knowledge", "2")):
            body, status = await curl(option, "--json", whole, url)
            assert status == f"{version} 200"
            text = json.loads(body)["choices"][0]["text"]
            assert len(text.split()) == 5

            body, status = await curl(option, "--no-buffer", "--json", streamed, url)
            assert status == f"{version} 200"
            events = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
            assert events[-1] == "[DONE]"
            assert "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1]) == text

        pool = await up.drained()
    assert pool["outcomes"] == {"answered": 6}
    assert pool["unpicked"] == 0
