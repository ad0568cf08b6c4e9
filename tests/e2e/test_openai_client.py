"""OpenAI's own client, unchanged, in front of `tidegate up`."""

from collections.abc import AsyncIterator

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from processes import gateway

MODEL = "tensorrt_llm"
MESSAGES = [ChatCompletionUserMessageParam(role="user", content="When is high tide?")]


@pytest.fixture
async def client() -> AsyncIterator[openai.AsyncOpenAI]:
    """Return the client of a gateway with two simulated servers; it does not try again by itself."""
    async with gateway("--demo", "2") as up:
        await up.ready()
        async with openai.AsyncOpenAI(base_url=f"{up.url}/v1", api_key="none", max_retries=0) as its_client:
            yield its_client
        assert (await up.drained())["unpicked"] == 0


async def test_the_official_client_chats_streams_and_lists_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]

    answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=8)
    assert len((answer.choices[0].message.content or "").split()) == 8
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert answer.usage.prompt_tokens > 0

    stream = await client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=8, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == answer.choices[0].message.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8


async def test_a_servers_error_reaches_the_official_client_as_it_is(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist here"):
        await client.chat.completions.create(model="no-such-model", messages=MESSAGES)
