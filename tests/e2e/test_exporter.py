"""`tidegate exporter` as users start it: beside servers that are there, slow, gone, or give JSON."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import aiohttp
import pytest

from processes import Tidegate, free_port, sim, tidegate, until
from servers import model_server

OLD_TRITON = b"""\
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="m",request_type="active",version="1"} 7
nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"} 4
"""


@contextlib.asynccontextmanager
async def exporter(*arguments: str) -> AsyncIterator[tuple[Tidegate, str]]:
    """Run one; yields it with the URL of its metrics."""
    async with tidegate("exporter", "--port", "0", *arguments) as process:
        yield process, (await process.said(r"exporter: (http://\S+/metrics) publishes"))[1]


async def get(url: str, **query: str) -> tuple[int, str]:
    async with aiohttp.request(
        "GET", url, params={key.replace("_", "[]"): value for key, value in query.items()}
    ) as it:
        return it.status, await it.text()


def values(exposition: str) -> dict[str, float]:
    """Return the values by the name of their series; of several with one name the last."""
    return {name: float(value) for name, value in re.findall(r"^([\w:]+)\S* (\S+)$", exposition, re.MULTILINE)}


async def test_what_a_server_says_is_passed_on_with_the_composite_it_lacks() -> None:
    async with model_server("a") as server, exporter("--scrape", f"{server.url}/metrics") as (process, url):
        server.metrics = OLD_TRITON
        status, text = await get(url)

        assert status == 200
        waiting = 'nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 3\n'
        assert text.startswith(OLD_TRITON.decode() + waiting)
        assert values(text)["tidegate_exporter_up"] == 1
        assert 0 <= values(text)["tidegate_exporter_age_seconds"] < 5
        await process.said(rf"reading {server.url}/metrics \(engine triton-tensorrt-llm\)")


async def test_a_type_that_is_none_of_an_exposition_is_put_right() -> None:
    async with (
        model_server("a") as server,
        exporter("--scrape", f"{server.url}/metrics") as (_, url),
        aiohttp.request("GET", f"{server.url}/metrics") as own,
        aiohttp.request("GET", url) as published,
    ):
        assert own.headers["Content-Type"] == "application/octet-stream"
        assert published.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_its_own_series_tell_of_a_server_that_nobody_scraped_since_it_died() -> None:
    async with contextlib.AsyncExitStack() as stack:
        server, its_url = await stack.enter_async_context(sim())
        process, url = await stack.enter_async_context(exporter("--scrape", its_url))
        own = url.replace("/metrics", "/exporter/metrics")
        status, text = await get(own)
        assert (status, values(text)["tidegate_exporter_up"]) == (200, 1)
        server.process.kill()
        await server.process.wait()

        async def is_down() -> bool:
            status, text = await get(own)
            return (status, values(text)["tidegate_exporter_up"]) == (200, 0)

        await until(is_down)
        await process.said("no metrics: .*connection refused")


async def test_many_who_ask_at_once_cost_the_server_one_answer() -> None:
    async with model_server("a") as server, exporter("--scrape", server.url) as (_, url):
        server.metrics_release.clear()
        asked = [asyncio.create_task(get(url)) for _ in range(20)]

        async def is_asked() -> bool:
            return server.scrapes_waiting > 0

        await until(is_asked)
        impatient = asked.pop()
        impatient.cancel()
        server.metrics_release.set()

        assert {status for status, _ in await asyncio.gather(*asked)} == {200}
        assert server.scraped == 1


async def test_a_server_that_is_down_is_a_502_with_the_reason_and_no_old_value() -> None:
    async with contextlib.AsyncExitStack() as stack:
        port = free_port()
        server, _ = await stack.enter_async_context(sim(port=port))
        process, url = await stack.enter_async_context(exporter("--scrape", f"http://127.0.0.1:{port}"))
        assert (await get(url))[0] == 200
        server.process.kill()
        await server.process.wait()

        async def is_down() -> str:
            status, text = await get(url)
            return text if status == 502 else ""

        text = await until(is_down)
        assert text.splitlines()[0].endswith("connection refused")
        assert "nv_trt_llm" not in text
        assert values(text)["tidegate_exporter_up"] == 0
        assert "tidegate_exporter_age_seconds" not in text
        status, own = await get(url.replace("/metrics", "/exporter/metrics"))
        assert (status, values(own)["tidegate_exporter_up"]) == (200, 0)
        await process.said("no metrics: .*connection refused")

        await stack.enter_async_context(sim(port=port))

        async def is_back() -> bool:
            return (await get(url))[0] == 200

        await until(is_back)


@pytest.mark.parametrize("engine", ["trtllm-serve", "triton-tensorrt-llm"])
async def test_the_load_in_the_names_of_vllm_follows_the_server_and_can_be_filtered(engine: str) -> None:
    # Slow iterations, so that the requests are still there when they are looked for.
    slow = ("--iteration-ms", "100", "--max-batch-size", "2", "--engine", engine)
    async with sim(*slow) as (_, server), exporter("--scrape", server, "--as", "vllm") as (_, url):
        status, text = await get(url)
        assert status == 200
        assert values(text)["vllm:num_requests_waiting"] == values(text)["vllm:num_requests_running"] == 0

        async with asyncio.TaskGroup() as tasks:
            requests = [tasks.create_task(complete(server)) for _ in range(5)]

            async def is_loaded() -> bool:
                loaded = values((await get(url))[1])
                return (loaded["vllm:num_requests_waiting"], loaded["vllm:num_requests_running"]) == (3, 2)

            await until(is_loaded)
            for request in requests:
                request.cancel()

        status, text = await get(url, name_="vllm:kv_cache_usage_perc")
        assert [line.split("{")[0].split(" ")[-1] for line in text.splitlines() if line[0] != "#"] == [
            "vllm:kv_cache_usage_perc"
        ]


@pytest.mark.parametrize("cancelled", [True, False])
async def test_the_json_of_trtllm_serve_is_read_when_its_url_is_given(cancelled: bool) -> None:
    slow = ("--iteration-ms", "100", "--max-batch-size", "2", "--engine", "trtllm-serve")
    async with sim(*slow) as (_, server), exporter("--scrape", f"{server}/metrics") as (_, url):
        status, text = await get(url)
        assert status == 502
        assert "enable_iter_perf_stats: true" in text.splitlines()[0]

        async with asyncio.TaskGroup() as tasks:
            requests = [tasks.create_task(complete(server, max_tokens=500 if cancelled else 8)) for _ in range(5)]

            async def is_loaded() -> bool:
                status, text = await get(url)
                loaded = values(text)
                waiting, running = "trtllm_num_requests_waiting", "trtllm_num_requests_running"
                return status == 200 and (loaded[waiting], loaded[running]) == (3, 2)

            await until(is_loaded)
            for request in requests if cancelled else ():
                request.cancel()

        async def is_idle() -> bool:
            _, text = await get(url)
            return values(text).get("trtllm_num_requests_running") == 0

        await until(is_idle)


async def test_metrics_of_trtllm_serve_without_its_load_are_a_502_that_names_the_options() -> None:
    async with model_server("a") as server, exporter("--scrape", f"{server.url}/metrics") as (_, url):
        server.metrics = b"# TYPE trtllm_request_success counter\ntrtllm_request_success_total 1\n"

        status, text = await get(url)

    assert status == 502
    assert "no request was served" in text.splitlines()[0]
    assert "return_perf_metrics: true and enable_iter_perf_stats: true" in text.splitlines()[0]


async def test_a_content_type_that_no_answer_can_have_is_not_passed_on() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\x00\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head % len(OLD_TRITON) + OLD_TRITON)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with exporter("--scrape", f"http://127.0.0.1:{port}/metrics") as (_, url):
            status, text = await get(url)

    assert status == 200
    assert text.startswith(OLD_TRITON.decode())


async def test_a_server_that_restarts_is_not_idle_because_the_one_before_it_was() -> None:
    port = free_port()
    options = ("--iteration-ms", "20", "--engine", "trtllm-serve")
    async with contextlib.AsyncExitStack() as stack:
        server, base = await stack.enter_async_context(sim(*options, port=port))
        _, url = await stack.enter_async_context(exporter("--scrape", f"{base}/metrics"))
        await complete(base, max_tokens=2)

        async def has(status: int) -> bool:
            return (await get(url))[0] == status

        await until(lambda: has(200))
        server.process.kill()
        await server.process.wait()
        await until(lambda: has(502))
        await stack.enter_async_context(sim(*options, port=port))

        async def answers() -> str:
            text = (await get(url))[1]
            return "" if "refused" in text else text

        assert "no iteration statistics yet" in (await until(answers)).splitlines()[0]


async def complete(server: str, *, max_tokens: int = 500) -> None:
    body = {"model": "tensorrt_llm", "prompt": "tide", "max_tokens": max_tokens}
    async with aiohttp.request("POST", f"{server}/v1/completions", json=body) as answer:
        await answer.read()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scrape", "ftp://x"], "bad URL 'ftp://x'"),
        (["--scrape", "http://x", "--as", "tgi"], "--as: engine tgi has no name for some of the signals"),
        (["--scrape", "http://x", "--as", "vlm"], "--as: no engine called 'vlm'. Use one of: vllm,"),
        (["--scrape", "http://x", "--engine", "vlm"], "Did you mean vllm"),
        ([], "missing option '--scrape'"),
    ],
)
async def test_a_mistake_is_one_line_and_status_2(arguments: list[str], said: str) -> None:
    async with tidegate("exporter", *arguments) as process:
        await process.said(re.escape(said))
        assert await process.end() == 2
        assert len(process.lines) == 1


async def test_a_port_in_use_is_said() -> None:
    async with (
        model_server("a") as server,
        tidegate("exporter", "--scrape", "http://x", "--port", str(server.port)) as it,
    ):
        await it.said(f"cannot listen on 127.0.0.1:{server.port}")
        assert await it.end() == 2
