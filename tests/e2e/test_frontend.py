"""OpenAI's own client in front of `tidegate frontend`, with a real Triton behind it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio
import tokenizers
from openai.types.chat import ChatCompletionUserMessageParam

from processes import Tidegate, until
from tritons import Exposition, Triton, frontend, parse, repository, tritons

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = ("tensorrt_llm", "llmapi", "vllm", "bls", "faulty", "echo")
MESSAGES = [ChatCompletionUserMessageParam(role="user", content="When is high tide?")]
PROMPT = "When is high tide?"
TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<assistant>"


class Served:
    """A Triton with a frontend before it."""

    def __init__(self, triton: Triton, process: Tidegate, url: str) -> None:
        self.triton = triton
        self.process = process
        self.url = url

    async def metrics(self) -> Exposition:
        """Return the series at the frontend's /metrics."""
        async with aiohttp.request("GET", f"{self.url}/metrics") as answer:
            assert answer.status == 200, await answer.text()
            return parse(await answer.text())

    async def requests(self, kind: str) -> float:
        """Return how many requests of the example's model are in that state."""
        labels = {"model": "tensorrt_llm", "version": "1", "request_type": kind}
        return (await self.metrics())["nv_trt_llm_request_metrics", frozenset(labels.items())]

    async def is_idle(self) -> bool:
        """Return whether the example's model has no request left."""
        return await self.requests("active") == await self.requests("waiting") == 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """Run a Triton with all the models, and a frontend that is ready."""
    directory = tmp_path_factory.mktemp("triton")
    template = directory / "template.jinja"
    template.write_text(TEMPLATE)
    models = repository(directory, *MODELS)
    whole = models / "llmapi_whole"
    whole.mkdir()
    (whole / "1").symlink_to(models / "llmapi" / "1")
    config = (models / "llmapi" / "config.pbtxt").read_text()
    (whole / "config.pbtxt").write_text(config.replace('"llmapi"', '"llmapi_whole"').replace("decoupled: true", ""))
    async with (
        tritons(directory, "a", options=("--models", str(models))) as [triton],
        frontend(triton, "--chat-template", str(template)) as (process, url),
    ):
        await until(lambda: is_ready(url))
        yield Served(triton, process, url)
        assert process.process.returncode is None


async def is_ready(url: str) -> bool:
    async with aiohttp.request("GET", f"{url}/health/ready") as answer:
        return answer.status == 200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(served: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    """Return the frontend's client, which does not try again by itself."""
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as its_client:
        yield its_client


async def inputs_of(client: openai.AsyncOpenAI, model: str, **asked: Any) -> dict[str, Any]:
    """Return what reached the model."""
    answer = await client.completions.create(model=model, prompt="inputs", max_tokens=50, **asked)
    received: dict[str, Any] = json.loads(answer.choices[0].text)
    return received


async def test_the_models_that_generate_text_are_listed(client: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in client.models.list()]
    assert listed == ["bls", "faulty", "llmapi", "llmapi_whole", "tensorrt_llm", "vllm"]
    assert (await client.models.retrieve("llmapi")).id == "llmapi"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("echo")


async def test_chat_is_answered_whole_and_in_a_stream(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="tensorrt_llm", messages=MESSAGES, max_tokens=8)

    text = answer.choices[0].message.content or ""
    assert len(text.split()) == 8
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8

    stream = await client.chat.completions.create(
        model="tensorrt_llm", messages=MESSAGES, max_tokens=8, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    deltas = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert "".join(deltas) == text
    assert len(deltas) == 8
    assert chunks[-1].usage == answer.usage


async def test_the_chat_template_makes_the_prompt(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="llmapi", messages=MESSAGES, max_tokens=2)

    assert answer.choices[0].message.content == "<user>When is"


@pytest.mark.parametrize("model", ["llmapi", "vllm", "bls"])
async def test_an_answer_has_its_words_once_and_not_the_prompt(client: openai.AsyncOpenAI, model: str) -> None:
    answer = await client.completions.create(model=model, prompt="one two three", max_tokens=40)
    stream = await client.completions.create(model=model, prompt="one two three", max_tokens=40, stream=True)
    parts = [choice.text async for chunk in stream for choice in chunk.choices]

    assert answer.choices[0].text == "".join(parts)
    assert answer.choices[0].text.split()[:3] == ["one", "two", "three"]
    assert len(parts) >= 4
    assert answer.choices[0].finish_reason == "stop"


async def test_a_model_that_is_not_decoupled_answers_in_one_part(client: openai.AsyncOpenAI) -> None:
    stream = await client.completions.create(
        model="llmapi_whole", prompt="one two three", max_tokens=5, temperature=0.5, stream=True
    )
    parts = [choice async for chunk in stream for choice in chunk.choices]

    assert [part.text for part in parts] == ["one two three one two", ""]
    assert parts[-1].finish_reason == "length"


async def test_the_backends_counts_are_believed_and_guesses_are_marked(client: openai.AsyncOpenAI) -> None:
    counted = await client.completions.create(model="vllm", prompt="one two three four", max_tokens=6)
    guessed = await client.completions.create(model="llmapi", prompt="one two three", max_tokens=6)

    assert counted.usage is not None
    assert (counted.usage.prompt_tokens, counted.usage.completion_tokens) == (8, 6)
    assert "estimated" not in counted.usage.to_dict()
    assert counted.choices[0].finish_reason == "length"
    assert guessed.usage is not None
    assert guessed.usage.completion_tokens == 6
    assert guessed.usage.to_dict()["estimated"] is True


async def test_a_tokenizer_counts_what_the_backend_does_not(served: Served, tmp_path: Path) -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    async with frontend(served.triton, "--tokenizer", str(tmp_path / "tokenizer.json")) as (_, url):
        await until(lambda: is_ready(url))
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            answer = await client.completions.create(model="llmapi", prompt="one two three", max_tokens=6)

    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 6)
    assert "estimated" not in answer.usage.to_dict()


async def test_fields_reach_the_llm_apis_inputs(client: openai.AsyncOpenAI) -> None:
    received = await inputs_of(
        client, "llmapi", temperature=0.5, top_p=0.25, frequency_penalty=1, presence_penalty=-1, seed=-1,
        stop=["\n", "\t"], extra_body={"top_k": 7},
    )  # fmt: skip

    assert received == {
        "text_input": "inputs",
        "streaming": True,
        "sampling_param_exclude_input_from_output": True,
        "return_finish_reason": True,
        "sampling_param_max_tokens": 50,
        "sampling_param_temperature": 0.5,
        "sampling_param_top_p": 0.25,
        "sampling_param_top_k": 7,
        "sampling_param_frequency_penalty": 1.0,
        "sampling_param_presence_penalty": -1.0,
        "sampling_param_seed": 2**64 - 1,
        "sampling_param_stop": ["\n", "\t"],
    }


async def test_fields_reach_vllms_sampling_parameters(client: openai.AsyncOpenAI) -> None:
    received = await inputs_of(
        client, "vllm", temperature=0.5, seed=7, stop=["\n"],
        extra_body={"top_k": 7, "min_tokens": 2, "ignore_eos": True, "repetition_penalty": 1.5},
    )  # fmt: skip

    assert received == {
        "max_tokens": 50,
        "temperature": 0.5,
        "seed": 7,
        "stop": ["\n"],
        "top_k": 7,
        "min_tokens": 2,
        "ignore_eos": True,
        "repetition_penalty": 1.5,
    }


async def test_fields_reach_an_ensembles_inputs_in_a_batch_of_one(client: openai.AsyncOpenAI) -> None:
    received = await inputs_of(
        client, "bls", temperature=0.5, seed=7, stop=["\n", "\t"], extra_body={"repetition_penalty": 1.5}
    )

    assert received == {
        "text_input": [["inputs"], [1, 1]],
        "max_tokens": [[50], [1, 1]],
        "bad_words": [[""], [1, 1]],
        "stop_words": [["\n", "\t"], [1, 2]],
        "exclude_input_in_output": [[True], [1, 1]],
        "temperature": [[0.5], [1, 1]],
        "repetition_penalty": [[1.5], [1, 1]],
        "random_seed": [[7], [1, 1]],
        "stream": [[True], [1, 1]],
    }


async def test_a_stop_text_ends_an_answer_whose_model_does_not_know_it(client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(model="tensorrt_llm", prompt=PROMPT, max_tokens=20)
    third = whole.choices[0].text.split()[2]

    answer = await client.completions.create(model="tensorrt_llm", prompt=PROMPT, max_tokens=20, stop=third)

    assert answer.choices[0].text == whole.choices[0].text.partition(third)[0]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


async def test_a_field_without_an_input_is_refused_by_name(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="has no input for temperature") as refused:
        await client.completions.create(model="tensorrt_llm", prompt=PROMPT, temperature=0.5)
    assert refused.value.param == "temperature"

    answer = await client.completions.create(
        model="tensorrt_llm", prompt=PROMPT, max_tokens=2, top_p=1, frequency_penalty=0
    )
    assert answer.choices[0].text


async def test_token_ids_are_refused(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="as text, not as token ids"):
        await client.completions.create(model="tensorrt_llm", prompt=[1, 2, 3])


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        ("raises", openai.InternalServerError, "The model failed. Triton's log says why"),
        ("refuses", openai.InternalServerError, "Triton: the prompt is too odd"),
        ("fails", openai.InternalServerError, "Triton: the executor died"),
        ("breaks_off", openai.InternalServerError, "Triton: the executor died"),
        ("counts", openai.InternalServerError, "The model's output text_output is of type INT32, not BYTES"),
    ],
)
async def test_a_models_failure_is_an_error_of_openais_form(
    client: openai.AsyncOpenAI, prompt: str, error: type[openai.APIStatusError], message: str
) -> None:
    for stream in (False, True) if prompt != "breaks_off" else (False,):
        with pytest.raises(error) as failed:
            await client.completions.create(model="faulty", prompt=prompt, max_tokens=9, stream=stream)

        assert isinstance(failed.value.body, dict)
        assert failed.value.body["message"] == message


async def test_a_failure_amid_a_stream_is_its_last_event(client: openai.AsyncOpenAI) -> None:
    stream = await client.completions.create(model="faulty", prompt="breaks_off", max_tokens=9, stream=True)
    chunks = aiter(stream)

    assert [(await anext(chunks)).choices[0].text for _ in range(2)] == ["one", " two"]
    with pytest.raises(openai.APIError, match="the executor died"):
        await anext(chunks)


@pytest.mark.parametrize(("prompt", "text"), [("says_nothing", ""), ("empties", ""), ("babbles", "ti��de")])
async def test_odd_answers_are_answers(client: openai.AsyncOpenAI, prompt: str, text: str) -> None:
    answer = await client.completions.create(model="faulty", prompt=prompt, max_tokens=9)

    assert answer.choices[0].text == text


async def test_a_prompt_that_the_model_refuses_is_told_in_its_words(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="exceed this server's KV cache of 2048 tokens"):
        await client.completions.create(model="tensorrt_llm", prompt=PROMPT, max_tokens=100_000)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_its_request_in_triton(
    served: Served, client: openai.AsyncOpenAI, stream: bool
) -> None:
    async def ask() -> None:
        answer = await client.completions.create(model="tensorrt_llm", prompt=PROMPT, max_tokens=1500, stream=stream)
        async for _ in answer:
            pass

    async def runs() -> bool:
        return await served.requests("active") > 0

    asking = asyncio.create_task(ask())
    await until(runs)

    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking

    await until(served.is_idle, within_s=5)  # 1,500 tokens would take 37 s


async def test_the_metrics_are_tritons_and_rise_under_load(served: Served, client: openai.AsyncOpenAI) -> None:
    """The second test of PR #725: curl localhost:9000/metrics, before and under load."""
    await until(served.is_idle)
    before = await served.metrics()
    assert before.keys() == (await served.triton.scrape()).keys()

    load = [
        asyncio.create_task(client.completions.create(model="tensorrt_llm", prompt=PROMPT, max_tokens=60))
        for _ in range(20)
    ]

    async def waits() -> bool:
        return await served.requests("waiting") == 12 and await served.requests("active") == 8

    await until(waits)
    used = {"model": "tensorrt_llm", "version": "1", "kv_cache_block_type": "fraction"}
    key = "nv_trt_llm_kv_cache_block_metrics", frozenset(used.items())
    assert (before[key], (await served.metrics())[key] > 0) == (0, True)
    await asyncio.gather(*load)
    await until(served.is_idle)


async def test_five_hundred_streams_run_at_a_time_on_few_threads(served: Served, client: openai.AsyncOpenAI) -> None:
    tasks = Path(f"/proc/{served.process.process.pid}/task")

    async def held_open(session: aiohttp.ClientSession, first: asyncio.Semaphore) -> str:
        body = {"model": "faulty", "prompt": "waits", "stream": True}
        async with session.post(f"{served.url}/v1/completions", json=body) as answer:
            line = await answer.content.readline()
            first.release()
            await asyncio.Event().wait()
            return line.decode()

    arrived = asyncio.Semaphore(0)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.timeout(60):
        streams = [asyncio.create_task(held_open(session, arrived)) for _ in range(500)]
        for _ in streams:
            await arrived.acquire()

        assert len(list(tasks.iterdir())) < 20
        answer = await client.completions.create(model="llmapi", prompt="one two", max_tokens=3)
        assert answer.choices[0].text == "one two one"
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)


async def test_a_client_that_does_not_read_costs_little_memory(served: Served, client: openai.AsyncOpenAI) -> None:
    """The model answers with 64 MB, which no buffer of a socket holds."""
    before = resident_mb(served.process.process.pid)
    body = json.dumps({"model": "faulty", "prompt": "floods", "stream": True}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % len(body)
    host, _, port = served.url.removeprefix("http://").partition(":")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
            stack.callback(writer.close)
            writer.write(head + body)
            await reader.readline()

        grown = 0
        for _ in range(20):  # a stream that is not held back comes at over 60 MB/s
            grown = max(grown, resident_mb(served.process.process.pid) - before)
            await asyncio.sleep(0.1)

        assert grown < 20
        answer = await client.completions.create(model="llmapi", prompt="one two", max_tokens=3)
        assert answer.choices[0].text == "one two one"


def resident_mb(pid: int | None) -> int:
    """Return the memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024
