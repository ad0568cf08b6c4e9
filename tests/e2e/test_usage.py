"""Token usage that Envoy reads from the answers, against what the client was told."""

from collections import Counter

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam
from openai.types.completion_usage import CompletionUsage

from clients import MODEL
from metrics import metric
from processes import gateway

PROMPT = "When is high tide? " * 40
MESSAGES = [ChatCompletionUserMessageParam(role="user", content=PROMPT)]


def counted(usage: CompletionUsage | None) -> Counter[str]:
    """Return what one answer says it used, by the names of the metric."""
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    cached = usage.prompt_tokens_details.cached_tokens
    return Counter(prompt=usage.prompt_tokens, completion=usage.completion_tokens, cached=cached or 0)


@pytest.mark.parametrize("wanted", [True, False])
async def test_tokens_of_streams_and_plain_answers_are_counted_where_it_is_wanted(wanted: bool) -> None:
    async with gateway("--demo", "1", *(["--usage-from-envoy"] if wanted else [])) as up:
        await up.ready()
        async with openai.AsyncOpenAI(base_url=f"{up.url}/v1", api_key="none", max_retries=0) as client:
            told: Counter[str] = Counter()
            for number in range(1, 6):
                answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=number)
                told += counted(answer.usage)
                stream = await client.chat.completions.create(
                    model=MODEL,
                    messages=MESSAGES,
                    max_tokens=10 * number,
                    stream=True,
                    stream_options={"include_usage": True},
                )
                chunks = [chunk async for chunk in stream]
                told += counted(chunks[-1].usage)
            # Nobody is told, so nothing is counted.
            silent = await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=50, stream=True)
            assert [chunk.usage async for chunk in silent] == [None] * 50
        await up.drained()

        kinds = ("prompt", "completion", "cached")
        published = {kind: await metric(up, "tidegate_tokens_total", type=kind) for kind in kinds}
        streams = await metric(up, "tidegate_ttft_seconds_count")

    assert told["cached"] > 0
    assert published == (dict(told) if wanted else dict.fromkeys(kinds, 0))
    assert streams == 6
