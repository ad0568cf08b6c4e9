"""OpenAI's own client, unchanged, in front of `tidegate up`."""

import asyncio
import functools
from collections.abc import AsyncIterator

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from processes import Gateway, gateway, until

MODEL = "tensorrt_llm"
MESSAGES = [ChatCompletionUserMessageParam(role="user", content="When is high tide?")]


@pytest.fixture
async def up() -> AsyncIterator[Gateway]:
    """Run a gateway with two simulated servers; in the end nothing is in flight, and all was picked for."""
    async with gateway("--demo", "2") as running:
        await running.ready()
        yield running
        assert (await running.drained())["unpicked"] == 0


@pytest.fixture
async def client(up: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    """Return the gateway's client, which does not try again by itself."""
    async with openai.AsyncOpenAI(base_url=f"{up.url}/v1", api_key="none", max_retries=0) as its_client:
        yield its_client


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


async def test_a_client_that_times_out_or_is_cancelled_has_aborted_and_frees_its_server(
    up: Gateway, client: openai.AsyncOpenAI
) -> None:
    long = {"model": MODEL, "messages": MESSAGES, "max_tokens": 4000}
    with pytest.raises(openai.APITimeoutError):
        await client.chat.completions.create(**long, timeout=0.3)

    cancelled = asyncio.create_task(client.chat.completions.create(**long))
    await until(functools.partial(_were_picked_for, up, 2))
    cancelled.cancel()

    stream = await client.chat.completions.create(**long, stream=True)
    async for _ in stream:
        break
    await stream.close()

    outcomes = {"aborted": 3}
    await until(functools.partial(_ended, up, outcomes))
    for name in await up.states():
        await up.shows(name, running_requests=0, queued_requests=0)


async def test_many_streams_of_the_official_client_at_a_time_are_all_answered(client: openai.AsyncOpenAI) -> None:
    async def chat() -> str:
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=20, stream=True)
        return "".join([choice.delta.content or "" async for chunk in stream for choice in chunk.choices])

    answers = await asyncio.gather(*(chat() for _ in range(50)))

    assert {len(answer.split()) for answer in answers} == {20}


async def _were_picked_for(up: Gateway, requests: int) -> bool:
    endpoints = (await up.pool()).get("endpoints", {}).values()
    return sum(endpoint["picks"] for endpoint in endpoints) == requests


async def _ended(up: Gateway, outcomes: dict[str, int]) -> bool:
    return (await up.pool()).get("outcomes") == outcomes
