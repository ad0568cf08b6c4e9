"""Triton's generate extension."""

import json

import aiohttp
import pytest

from frontends import MODEL, simulated_server


async def post(url: str, body: object) -> tuple[int, str]:
    async with aiohttp.request("POST", url, data=json.dumps(body)) as answer:
        return answer.status, await answer.text()


async def test_the_stream_has_an_event_per_token_and_says_what_the_whole_answer_says() -> None:
    body = {"text_input": "tide", "max_tokens": 6, "stream": True}
    async with simulated_server() as url:
        status, events = await post(f"{url}/v2/models/{MODEL}/generate_stream", body)
        whole_status, whole = await post(f"{url}/v2/models/{MODEL}/generate", body)
    assert (status, whole_status) == (200, 200)
    outputs = [json.loads(event.removeprefix("data: ")) for event in events.strip().split("\n\n")]
    assert len(outputs) == 6
    assert "".join(output["text_output"] for output in outputs) == json.loads(whole)["text_output"]
    assert {output["served_by"] for output in outputs} == {"sim-1"} == {json.loads(whole)["served_by"]}


@pytest.mark.parametrize("operation", ["generate", "generate_stream"])
@pytest.mark.parametrize(
    ("model", "body", "status", "says"),
    [
        ("nobody", {"text_input": "tide", "max_tokens": 6}, 404, "unknown model"),
        (MODEL, {"text_input": "tide"}, 400, "max_tokens"),
        (MODEL, {"max_tokens": 6}, 400, "text_input"),
        (MODEL, {"text_input": "", "max_tokens": 6}, 400, "text_input"),
        (MODEL, {"text_input": 7, "max_tokens": 6}, 400, "text_input"),
        (MODEL, {"text_input": "tide", "max_tokens": 10**8}, 400, "KV cache of"),
        (MODEL, [], 400, "object"),
    ],
)
async def test_a_wrong_request_gets_tritons_error(
    operation: str, model: str, body: object, status: int, says: str
) -> None:
    async with simulated_server() as url:
        answered, text = await post(f"{url}/v2/models/{model}/{operation}", body)
    assert answered == status
    assert says in json.loads(text)["error"]
