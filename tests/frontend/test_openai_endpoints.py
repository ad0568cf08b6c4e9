"""The OpenAI endpoints, through the official client where it lets us say it."""

import asyncio
import contextlib
import json
from typing import Any

import aiohttp
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontends import MODEL, listening, simulated_server
from tidegate.frontend.app import create_app
from tidegate.frontend.body import parse_body
from tidegate.frontend.errors import ApiError
from tidegate.frontend.openai_types import ChatBody, CompletionBody
from tidegate.simulator.limits import Limits


def client_of(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20)


async def post(url: str, path: str, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body)
    async with aiohttp.request("POST", url + path, data=data) as answer:
        return answer.status, await answer.json()


async def test_a_completion_has_its_tokens_usage_and_who_served_it() -> None:
    async with simulated_server() as url, client_of(url) as client:
        answer = await client.completions.create(model=MODEL, prompt="a" * 40, max_tokens=7)
    assert len(answer.choices[0].text.split()) == 7
    assert answer.choices[0].finish_reason == "length"
    assert answer.system_fingerprint == "sim-1"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (10, 7, 17)


async def test_the_same_prompt_gets_the_same_answer_and_finds_its_beginning_cached() -> None:
    prompt = "".join(f"{number:03} " for number in range(100))  # 100 tokens: 3 full blocks of 32
    async with simulated_server() as url, client_of(url) as client:
        first, second = [await client.completions.create(model=MODEL, prompt=prompt) for _ in range(2)]
    assert first.choices[0].text == second.choices[0].text
    cached = [one.usage and one.usage.prompt_tokens_details for one in (first, second)]
    assert [details and details.cached_tokens for details in cached] == [0, 96]


async def test_a_streamed_completion_is_the_whole_one_in_pieces() -> None:
    async with simulated_server() as url, client_of(url) as client:
        whole = await client.completions.create(model=MODEL, prompt="tide", max_tokens=9)
        stream = await client.completions.create(model=MODEL, prompt="tide", max_tokens=9, stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 8 + ["length"]
    assert {chunk.system_fingerprint for chunk in chunks} == {"sim-1"}
    assert all(chunk.usage is None for chunk in chunks)


async def test_a_streamed_chat_ends_with_its_usage_when_asked() -> None:
    async with simulated_server() as url, client_of(url) as client:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hello"}],
            max_completion_tokens=5,
            stream=True,
            stream_options={"include_usage": True},
        )
        *chunks, last = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len("".join(chunk.choices[0].delta.content or "" for chunk in chunks).split()) == 5
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 5
    assert last.usage.prompt_tokens_details is not None
    assert last.usage.prompt_tokens_details.cached_tokens == 0


async def test_a_chat_without_a_limit_ends_by_itself() -> None:
    async with simulated_server() as url, client_of(url) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello"}])
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content


async def test_a_conversation_that_goes_on_reuses_its_beginning() -> None:
    turns: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "wave " * 100}]}]
    async with simulated_server() as url, client_of(url) as client:
        first = await client.chat.completions.create(model=MODEL, messages=turns, max_tokens=5)
        turns += [{"role": "assistant", "content": first.choices[0].message.content}, {"role": "user", "content": "?"}]
        second = await client.chat.completions.create(model=MODEL, messages=turns, max_tokens=5)
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    assert second.usage.prompt_tokens_details.cached_tokens == 128  # of the first prompt's 130, in blocks of 32


async def test_many_streams_at_once_each_get_their_own_tokens() -> None:
    async with simulated_server(Limits(max_batch_size=4)) as url, client_of(url) as client:

        async def words(prompt: str) -> list[str]:
            answer = await client.completions.create(model=MODEL, prompt=prompt, max_tokens=12, stream=True)
            return [chunk.choices[0].text async for chunk in answer]

        prompts = [f"prompt {number}" for number in range(12)]
        together = await asyncio.gather(*map(words, prompts))
        alone = [await words(prompt) for prompt in prompts]
    assert together == alone
    assert all(len(tokens) == 12 for tokens in together)


async def test_token_ids_are_a_prompt_too() -> None:
    async with simulated_server() as url, client_of(url) as client:
        answer = await client.completions.create(model=MODEL, prompt=[1, 2, 3], max_tokens=2)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3


async def test_the_models_are_listed_and_the_server_is_healthy() -> None:
    async with simulated_server() as url, client_of(url) as client:
        assert [model.id async for model in client.models.list()] == [MODEL]
        for path in ("/health", "/health/ready", "/v2/health/ready"):
            async with aiohttp.request("GET", url + path) as answer:
                assert answer.status == 200


GOOD = {"model": MODEL, "prompt": "tide", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
BOTH = ("/v1/completions", "/v1/chat/completions")


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"max_tokens": "5"}, 400, "max_tokens"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 10**30}, 400, "max_tokens"),
        ({"max_tokens": 10**9}, 400, None),  # more than the KV cache holds
        ({"model": None}, 400, "model"),
        ({"model": "nobody"}, 404, "model"),
        ({"n": 2}, 400, "n"),
        ({"temperature": 3}, 400, "temperature"),
        ({"stream": "yes"}, 400, "stream"),
        ({"top_p": 0}, 400, "top_p"),
        ({"seed": 1.5}, 400, "seed"),
        ({"frequency_penalty": 2.1}, 400, "frequency_penalty"),
        ({"presence_penalty": "much"}, 400, "presence_penalty"),
        ({"logit_bias": {"50256": -100}}, 400, "logit_bias"),
        ({"stop": ""}, 400, "stop"),
        ({"stop": ["a"] * 17}, 400, "stop"),
        ({"min_tokens": 3}, 400, "min_tokens"),
        ({"prompt": "", "messages": []}, 400, None),
        ({"prompt": ["a", "b"], "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, None),
        ({"prompt": [-1], "messages": [{"role": 1}]}, 400, None),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_wrong_body_gets_an_error_object(path: str, change: dict[str, Any], status: int, param: str) -> None:
    async with simulated_server() as url:
        answered, body = await post(url, path, GOOD | change)
        assert answered == status
        assert body["error"]["type"] == "invalid_request_error"
        assert body["error"]["message"]
        assert param is None or body["error"]["param"] == param


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("/v1/completions", "best_of", 2),
        ("/v1/completions", "logprobs", 0),
        ("/v1/completions", "suffix", "end"),
        ("/v1/chat/completions", "logprobs", True),
        ("/v1/chat/completions", "tools", [{"type": "function"}]),
        ("/v1/chat/completions", "response_format", {"type": "json_object"}),
    ],
)
async def test_what_this_server_cannot_do_is_refused_not_passed_over(path: str, field: str, value: object) -> None:
    async with simulated_server() as url:
        status, body = await post(url, path, GOOD | {field: value})
    assert (status, body["error"]["param"]) == (400, field)
    assert f"{field} is not supported: " in body["error"]["message"]


@pytest.mark.parametrize("path", BOTH)
async def test_fields_at_their_defaults_and_unknown_ones_change_nothing(path: str) -> None:
    defaults = {
        "n": 1,
        "best_of": 1,
        "echo": False,
        "stop": None,
        "seed": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": -1,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "logit_bias": {},
        "min_tokens": 1,
        "ignore_eos": True,
        "response_format": {"type": "text"},
        "tools": [],
        "user": "me",
        "metadata": {"a": "b"},
        "brand_new": 1,
    }
    async with simulated_server() as url:
        plain, full = [await post(url, path, body) for body in (GOOD, GOOD | defaults)]
    assert [status for status, _ in (plain, full)] == [200, 200]
    assert plain[1]["choices"] == full[1]["choices"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_ends_before_a_stop_with_the_tokens_it_took(stream: bool) -> None:
    async with simulated_server() as url, client_of(url) as client:
        whole = await client.completions.create(model=MODEL, prompt="tide", max_tokens=20)
        words = whole.choices[0].text.split(" ")
        stop = f"{words[3][-2:]} {words[4][:2]}"  # over the border of two tokens
        if stream:
            chunks = [
                chunk
                async for chunk in await client.completions.create(
                    model=MODEL,
                    prompt="tide",
                    max_tokens=20,
                    stop=["zzz", stop],
                    stream=True,
                    stream_options={"include_usage": True},
                )
            ]
            text, reason = "".join(chunk.choices[0].text for chunk in chunks[:-1]), chunks[-2].choices[0].finish_reason
            usage = chunks[-1].usage
        else:
            answer = await client.completions.create(model=MODEL, prompt="tide", max_tokens=20, stop=["zzz", stop])
            text, reason, usage = answer.choices[0].text, answer.choices[0].finish_reason, answer.usage
    assert text == whole.choices[0].text.partition(stop)[0]
    assert reason == "stop"
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (1, 5)


@pytest.mark.parametrize("stream", [False, True])
async def test_echo_puts_the_prompt_before_the_answer(stream: bool) -> None:
    body = GOOD | {"max_tokens": 3}
    async with simulated_server() as url, client_of(url) as client:
        _, plain = await post(url, "/v1/completions", body)
        if stream:
            events = await client.completions.create(model=MODEL, prompt="tide", max_tokens=3, echo=True, stream=True)
            text = "".join([event.choices[0].text async for event in events])
        else:
            text = (await post(url, "/v1/completions", body | {"echo": True}))[1]["choices"][0]["text"]
        status, refused = await post(url, "/v1/completions", body | {"echo": True, "prompt": [1, 2]})
    assert text == "tide" + plain["choices"][0]["text"]
    assert (status, refused["error"]["param"]) == (400, "echo")


async def test_one_model_is_found_by_its_name() -> None:
    async with simulated_server() as url, client_of(url) as client:
        assert (await client.models.retrieve(MODEL)).id == MODEL
        with pytest.raises(openai.NotFoundError, match="does not exist here"):
            await client.models.retrieve("acme/other")


async def test_a_missing_model_is_named() -> None:
    async with simulated_server() as url:
        status, body = await post(url, "/v1/completions", {"prompt": "tide"})
    assert (status, body["error"]["param"]) == (400, "model")


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b'{"model": "\\ud800"', b"[" * 200_000, b'"' + b"a" * 9])
async def test_what_is_not_a_json_object_gets_400(raw: bytes) -> None:
    async with simulated_server() as url:
        status, body = await post(url, "/v1/chat/completions", raw)
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.floats() | st.integers(), st.lists).map(
        lambda value: json.dumps({"model": value, "messages": value, "prompt": value}).encode()
    )
)
def test_any_bytes_are_a_body_or_an_error(raw: bytes) -> None:
    with contextlib.suppress(ApiError):
        assert parse_body(raw, CompletionBody).parse_prompt()
    with contextlib.suppress(ApiError):
        assert parse_body(raw, ChatBody).parse_conversation()


async def test_a_body_over_the_limit_gets_413_with_or_without_its_length() -> None:
    async def endless() -> Any:
        for _ in range(64):
            yield b" " * 1024

    app = create_app(_Unused(), name="small", body_limit_bytes=10_000)
    async with listening(app) as url:
        for data in (b" " * 10_001, endless()):
            async with aiohttp.request("POST", f"{url}/v1/completions", data=data) as answer:
                assert answer.status == 413
                assert "10000 bytes" in (await answer.json())["error"]["message"]


async def test_an_unknown_path_gets_an_error_object() -> None:
    async with simulated_server() as url:
        status, body = await post(url, "/v1/embeddings", {})
    assert (status, body["error"]["type"]) == (404, "invalid_request_error")


class _Unused:
    """A Generator that no request reaches."""

    def models(self) -> list[str]:
        return [MODEL]

    def ready(self) -> bool:
        return True

    def generate(self, request: object) -> Any:
        raise AssertionError(request)

    async def exposition(self) -> bytes:
        return b""
