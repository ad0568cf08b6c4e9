"""NVIDIA's own client in front of `tidegate up`, with real Tritons behind it."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http.aio as triton_http
from tritonclient.utils import InferenceServerException

from processes import Gateway, gateway
from tritons import SERVE, tritons

MODELS = (SERVE.parent / "models" / "tensorrt_llm", Path(__file__).resolve().parents[1] / "triton_models" / "echo")


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Gateway]:
    """Two Tritons with an LLM and another model, behind a gateway."""
    repository = tmp_path / "models"
    repository.mkdir()
    for model in MODELS:
        (repository / model.name).symlink_to(model)
    async with (
        tritons(tmp_path, "a", "b", options=("--models", str(repository))) as servers,
        gateway(*(server.argument for server in servers)) as running,
    ):
        await running.ready()
        yield running


def texts(result: triton_http.InferResult, name: str) -> list[bytes]:
    """Return an output tensor: bytes where it came as binary, text where it came as JSON."""
    return [word if isinstance(word, bytes) else word.encode() for word in result.as_numpy(name).tolist()]


async def test_the_official_client_asks_and_infers(up: Gateway) -> None:
    async with triton_http.InferenceServerClient(up.url.removeprefix("http://")) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("tensorrt_llm")
        metadata = await client.get_model_metadata("tensorrt_llm")
        assert {tensor["name"] for tensor in metadata["inputs"]} == {"text_input", "max_tokens", "stream"}

        served_by = set()
        words = [b"tide", b"", "größer".encode(), b"x" * 200_000]
        for number in range(12):
            # Tensors travel as binary behind the JSON, then both ways as JSON alone.
            binary = bool(number % 2)
            text = triton_http.InferInput("text", [len(words)], "BYTES")
            text.set_data_from_numpy(np.array(words, dtype=np.object_), binary_data=binary)
            wanted = [triton_http.InferRequestedOutput(name, binary_data=binary) for name in ("echoed", "served_by")]
            result = await client.infer("echo", [text], outputs=wanted)
            assert texts(result, "echoed") == words
            served_by.add(*texts(result, "served_by"))
        assert served_by == {b"a", b"b"}

        with pytest.raises(InferenceServerException, match="unknown model"):
            await client.get_model_metadata("no-such-model")

    pool = await up.drained()
    assert pool["unpicked"] == 0
    assert pool["outcomes"] == {"answered": 17}
