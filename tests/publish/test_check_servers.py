"""`check` against real servers on loopback, good and bad."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from processes import free_port, until
from servers import listening_port, model_server
from tidegate.protocol.engines import ENGINES
from tidegate.protocol.errors import ConfigError
from tidegate.publish.check import checking
from tidegate.publish.check.checking import CheckOptions, check_servers
from tidegate.publish.check.report import ServerReport, as_document, exit_status
from tidegate.scrape import probe

FIXTURES = Path(__file__).parents[1] / "fixtures" / "metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

VLLM = """\
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{model_name="m"}} {queued}
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{model_name="m"}} {running}
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{model_name="m"}} {kv}
# TYPE vllm:request_success counter
vllm:request_success_total{{model_name="m"}} {finished}
"""
SOUND = VLLM.format(queued=3, running=2, kv=0.5, finished=7)
STATISTICS = [{"iter": 1, "numActiveRequests": 2}]
TRTLLM = (
    "# TYPE trtllm_num_requests_waiting gauge\ntrtllm_num_requests_waiting 0\n"
    "# TYPE trtllm_num_requests_running gauge\ntrtllm_num_requests_running 0\n"
    "# TYPE trtllm_kv_cache_utilization gauge\ntrtllm_kv_cache_utilization 0\n"
)

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Serves what a test says, and notes what it was asked for."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.answers: dict[str, Answer] = {}

    def says(self, path: str, *bodies: str | bytes, content_type: str = CONTENT_TYPE, status: int = 200) -> None:
        """Answer a path with these bodies, one after the other, the last one ever after."""
        left = list(bodies)

        async def answer(_: web.Request) -> web.Response:
            body = left.pop(0) if len(left) > 1 else left[0]
            raw = body.encode() if isinstance(body, str) else body
            return web.Response(body=raw, status=status, headers={"Content-Type": content_type})

        self.answers[path] = answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path_qs}")
        answer = self.answers.get(request.path)
        return await answer(request) if answer else web.json_response({"detail": "Not Found"}, status=404)

    def count(self, path: str) -> int:
        return self.asked.count(f"GET {path}")


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(probe, "TRITON_METRICS_PORT", free_port())  # A Triton may run on this machine.
    serving = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serving.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    serving.url = f"http://127.0.0.1:{listening_port(site)}"
    try:
        yield serving
    finally:
        await runner.cleanup()


async def report_on(url: str, **options: Any) -> ServerReport:
    [report] = await check_servers([url], CheckOptions(**options))
    return report


def found(report: ServerReport, rule: str) -> list[str]:
    return [finding.message for finding in report.findings if finding.rule == rule]


async def test_a_base_url_leads_to_the_metrics_and_the_json_is_what_scripts_rely_on(server: Server) -> None:
    server.says("/metrics", SOUND)

    report = await report_on(server.url)

    assert report.metrics_url == f"{server.url}/metrics"
    filtered = "/metrics?name%5B%5D=vllm:num_requests_waiting"
    assert server.asked == [f"GET {path}" for path in ("/prometheus/metrics", "/metrics", "/metrics", filtered)]
    document = as_document(report)
    findings = document.pop("findings")
    assert document == {
        "url": server.url,
        "engine": "vllm",
        "signals": {
            "queued_requests": 3,
            "running_requests": 2,
            "kv_utilization": 0.5,
            "block_size": None,
            "num_blocks": None,
            "lora": None,
        },
        "sources": {
            "queued_requests": "vllm:num_requests_waiting",
            "running_requests": "vllm:num_requests_running",
            "kv_utilization": "vllm:kv_cache_usage_perc",
        },
        "conformant": True,
    }
    assert all(set(finding) == {"rule", "level", "message", "fix"} for finding in findings)
    assert exit_status([report]) == 0


async def test_adapters_are_listed_in_the_json(server: Server) -> None:
    server.says("/metrics", (FIXTURES / "vllm/lora_loaded.txt").read_bytes())

    document = as_document(await report_on(server.url))

    assert document["signals"]["lora"] == {"max": 1, "running": ["fr-support"], "waiting": ["fr-support"]}
    assert document["sources"]["lora"] == "labels of vllm:lora_requests_info"


async def test_metrics_at_another_path_are_read_without_touching_the_statistics_beside_them(server: Server) -> None:
    server.says("/prometheus/metrics", TRTLLM)
    server.says("/metrics", json.dumps(STATISTICS), content_type="application/json")

    report = await report_on(server.url)

    assert (report.engine, report.conformant) == ("trtllm-serve", True)
    assert f"checked was {server.url}/prometheus/metrics" in found(report, "metrics-drain")[0]
    assert server.count("/metrics") == 0


async def test_statistics_at_the_url_given_lead_to_the_exposition_beside_them(server: Server) -> None:
    server.says("/prometheus/metrics", TRTLLM)
    server.says("/metrics", "[]", content_type="application/json")

    report = await report_on(f"{server.url}/metrics")

    assert (report.engine, report.metrics_url) == ("trtllm-serve", f"{server.url}/prometheus/metrics")
    assert found(report, "metrics-drain")
    assert server.count("/metrics") == 1


async def test_statistics_alone_cannot_be_checked_and_the_options_are_named(server: Server) -> None:
    server.says("/metrics", json.dumps(STATISTICS), content_type="application/json")

    report = await report_on(server.url)

    [finding] = report.findings
    assert finding.rule == "statistics-json"
    assert "return_perf_metrics: true and enable_iter_perf_stats: true" in finding.fix
    assert "tidegate exporter" in finding.fix
    assert exit_status([report]) == 2


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        ("<html>\n<p>Welcome</p>\n</html>\n", "text/html", "no line of an exposition"),
        ("", "text/plain", "is empty"),
        ('{"status": "ok"}', "application/json", "no line of an exposition"),
        (b"\x00\xff\n" * 9, "application/octet-stream", "no line of an exposition"),
    ],
)
async def test_what_is_no_exposition_cannot_be_checked(
    server: Server, body: str | bytes, content_type: str, says: str
) -> None:
    server.says("/metrics", body, content_type=content_type)

    report = await report_on(f"{server.url}/metrics")

    assert [finding.rule for finding in report.findings] == ["not-an-exposition"]
    assert says in report.findings[0].message
    assert not report.conformant
    assert exit_status([report]) == 2


async def test_an_error_of_the_server_cannot_be_checked(server: Server) -> None:
    server.says("/metrics", "oops", status=500)

    report = await report_on(f"{server.url}/metrics")

    assert found(report, "not-an-exposition") == [f"{server.url}/metrics: status 500 instead of 200"]


async def test_a_server_that_is_not_there_cannot_be_checked() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    report = await report_on(url)

    assert "cannot connect: connection refused" in found(report, "unreachable")[0]
    assert as_document(report)["engine"] is None
    assert exit_status([report]) == 2


async def test_a_server_that_hangs_is_given_up_in_time(server: Server) -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    server.answers["/metrics"] = hang

    report = await report_on(f"{server.url}/metrics", timeout_s=0.2)

    assert "no whole answer within 0.2 s" in found(report, "timeout")[0]


async def test_a_server_that_hangs_at_its_base_url_is_given_up_at_once(server: Server) -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    server.answers["/prometheus/metrics"] = hang

    report = await report_on(server.url, timeout_s=0.2)

    assert found(report, "timeout")
    assert server.asked == ["GET /prometheus/metrics"]


async def test_places_that_have_nothing_are_all_named(server: Server) -> None:
    report = await report_on(server.url)

    [message] = found(report, "not-an-exposition")
    assert f"{server.url}/prometheus/metrics: status 404" in message
    assert f"{server.url}/metrics: status 404" in message
    assert f"http://127.0.0.1:{probe.TRITON_METRICS_PORT}/metrics: " in message


async def test_metrics_of_no_engine_are_not_conformant(server: Server) -> None:
    server.says("/metrics", "process_cpu_seconds_total 1\n")

    report = await report_on(server.url)

    assert [finding.rule for finding in report.findings] == ["engine-unknown"]
    assert exit_status([report]) == 1


async def test_the_engine_can_be_named(server: Server) -> None:
    server.says("/metrics", (FIXTURES / "triton/classifier_loaded.txt").read_bytes())

    detected, named = await report_on(server.url), await report_on(server.url, engine=ENGINES["triton"])

    assert (detected.engine, detected.conformant) == ("triton-tensorrt-llm", True)
    assert (named.engine, named.conformant) == ("triton", False)
    assert named.signals.queued_requests == 4


async def test_servers_are_checked_in_their_order_and_one_that_is_down_does_not_keep_the_others(server: Server) -> None:
    server.says("/metrics", SOUND)
    urls = [f"http://127.0.0.1:{free_port()}", server.url, f"{server.url}/nothing"]

    reports = await check_servers(urls, CheckOptions())

    assert [report.url for report in reports] == urls
    assert [report.conformant for report in reports] == [False, True, False]
    assert exit_status(reports) == 2
    assert exit_status(reports[1:2]) == 0


async def test_a_url_that_is_none_is_refused_before_anything_is_asked(server: Server) -> None:
    with pytest.raises(ConfigError, match="bad URL 'gpu-1:8000'"):
        await check_servers([server.url, "gpu-1:8000"], CheckOptions())
    assert server.asked == []


CLASSIFIER_TOO = (FIXTURES / "triton/classifier_loaded.txt").read_text()
TORN = (FIXTURES / "triton/loaded.txt").read_text().replace('"waiting",version="1"} 4', '"waiting",version="1"} 1')
WHOLE = (FIXTURES / "triton/loaded.txt").read_text()


@pytest.mark.parametrize(("third", "rules"), [(WHOLE, []), (TORN, ["waiting-inconsistent"])], ids=["once", "twice"])
async def test_figures_that_disagree_must_do_so_twice(server: Server, third: str, rules: list[str]) -> None:
    server.says("/metrics", WHOLE, TORN, third)

    report = await report_on(f"{server.url}/metrics")

    assert [finding.rule for finding in report.findings if finding.rule.startswith("waiting")] == rules


async def test_reading_the_metrics_of_the_others_is_no_time_that_a_server_took(server: Server) -> None:
    others = "".join(f'other{{number="{number}"}} {number}\n' for number in range(10_000))
    server.says("/metrics", SOUND + others)

    reports = await check_servers([f"{server.url}/metrics"] * 8, CheckOptions())

    assert [found(report, "scrape-slow") for report in reports] == [[]] * 8


async def test_a_server_that_is_always_slow_is_told_of_and_one_that_was_once_is_not(server: Server) -> None:
    delays = [0.0, 0.15, 0.0]

    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(delays.pop(0) if len(delays) > 1 else delays[0])
        return web.Response(text=SOUND, content_type="text/plain")

    server.answers["/metrics"] = slow

    assert not found(await report_on(f"{server.url}/metrics"), "scrape-slow")
    delays[:] = [0.15]
    assert "more than 100 ms" in found(await report_on(f"{server.url}/metrics"), "scrape-slow")[0]


async def test_an_exposition_larger_than_a_scrape_takes_is_read_and_told_of(server: Server) -> None:
    server.says("/metrics", SOUND + "".join(f'other{{n="{number:040}"}} 1\n' for number in range(50_000)))

    report = await report_on(f"{server.url}/metrics", timeout_s=20)

    assert found(report, "exposition-large")
    assert report.signals.queued_requests == 3


@pytest.mark.parametrize("path", ["/metrics", "/metrics?verbose=1"])
async def test_a_filter_by_name_that_is_honoured_is_told_of(server: Server, path: str) -> None:
    async def filtered(request: web.Request) -> web.Response:
        names = request.query.getall("name[]", [])
        lines = [line for line in SOUND.splitlines(keepends=True) if not names or line.startswith(f"{names[0]}{{")]
        return web.Response(text="".join(lines), content_type="text/plain")

    server.answers["/metrics"] = filtered

    report = await report_on(server.url + path)

    assert found(report, "name-filter") == ["name[] is honoured: 1 of 4 samples come"]


async def test_the_api_is_asked_for_one_token_of_the_model_that_the_server_lists(server: Server) -> None:
    bodies: list[dict[str, Any]] = []

    async def complete(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response({"choices": [{"text": "tide"}]})

    server.says("/metrics", SOUND)
    server.says("/v1/models", json.dumps({"data": [{"id": "acme/tiny"}]}), content_type="application/json")
    server.answers["/v1/completions"] = complete

    report = await report_on(server.url, api=True)

    assert [(body["model"], body["max_tokens"]) for body in bodies] == [("acme/tiny", 1)]
    assert found(report, "api-answers")[0].startswith("POST /v1/completions: one token in")
    assert "POST /v1/chat/completions: status 404" in found(report, "api-chat-completions")[0]
    assert exit_status([report]) == 1


async def test_without_a_list_of_models_the_one_that_the_metrics_name_is_asked_for(server: Server) -> None:
    models: list[str] = []

    async def complete(request: web.Request) -> web.Response:
        models.append((await request.json())["model"])
        return web.json_response({"choices": [{"text": "tide", "message": {}}]})

    server.says("/metrics", SOUND)
    server.says("/v1/models", "[" * 10_000, content_type="application/json")
    server.answers["/v1/completions"] = server.answers["/v1/chat/completions"] = complete

    assert (await report_on(server.url, api=True)).conformant
    assert models == ["m", "m"]


async def test_an_api_that_cuts_its_answer_or_never_ends_it_is_an_error(server: Server) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await answer.write(b"x" * 65_536)
        return answer

    async def cut(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "100"})
        await answer.prepare(request)
        assert request.transport is not None
        request.transport.abort()
        return answer

    server.says("/metrics", SOUND)
    server.answers |= {"/v1/completions": endless, "/v1/chat/completions": cut}

    report = await report_on(server.url, api=True)

    assert "the answer is no JSON: xxx" in found(report, "api-completions")[0]
    assert found(report, "api-chat-completions")


async def test_requests_and_metrics_may_have_urls_of_their_own(server: Server) -> None:
    server.says("/metrics", SOUND)
    url = f"http://127.0.0.1:{free_port()},metrics={server.url}/metrics"

    report = await report_on(url, api=True)

    assert (report.url, report.engine) == (url, "vllm")
    assert len(found(report, "api-completions")) == 1
    assert not [asked for asked in server.asked if "/v1/" in asked]


@pytest.mark.parametrize(
    ("metrics", "paths"),
    [
        (SOUND, ("/v1/completions", "/v1/completions")),
        (CLASSIFIER_TOO, ("/v2/models/tensorrt_llm/generate", "/v2/models/tensorrt_llm/generate_stream")),
    ],
    ids=["vllm", "triton"],
)
async def test_load_headers_are_asked_for_on_plain_and_streamed_answers(
    server: Server, metrics: str, paths: tuple[str, str]
) -> None:
    async def complete(request: web.Request) -> web.Response:
        streamed = (await request.json())["stream"]
        asked = request.headers["endpoint-load-metrics-format"]
        load = {} if streamed else {"endpoint-load-metrics": f'{asked.upper()} {{"named_metrics": {{"kv": 0.5}}}}'}
        return web.Response(text="data: [DONE]\n\n", headers=load)

    server.says("/metrics", metrics)
    server.answers |= dict.fromkeys(paths, complete)

    report = await report_on(f"{server.url}/metrics", orca=True)

    assert found(report, "orca-reported") == [f"ORCA: load header on the plain answer of {paths[0]}: kv=0.5"]
    assert found(report, "orca-missing") == [f"ORCA: no load header on the streamed answer of {paths[1]}"]


async def test_a_server_that_stands_still_while_requests_finish_is_found_by_watching_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "WATCH_INTERVAL_S", 0.02)
    finished = iter(range(10_000))

    async def frozen(_: web.Request) -> web.Response:
        text = VLLM.format(queued=3, running=2, kv=0.5, finished=next(finished))
        return web.Response(text=text, content_type="text/plain")

    server.answers["/metrics"] = frozen

    report = await report_on(f"{server.url}/metrics", watch_s=0.2)

    assert "queued_requests=3, running_requests=2, kv_utilization=0.5 at each of" in found(report, "values-frozen")[0]
    assert as_document(report)["watch"]["completions"]["changes"] >= 1


async def test_what_moved_is_told_even_of_a_server_that_fails_now_and_then(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "WATCH_INTERVAL_S", 0.02)
    asked = 0

    async def moving(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if asked > 3 and asked % 2:
            return web.Response(status=500)
        text = VLLM.format(queued=asked, running=2, kv=0.5, finished=asked)
        return web.Response(text=text, content_type="text/plain")

    server.answers["/metrics"] = moving

    report = await report_on(f"{server.url}/metrics", watch_s=0.3)

    queued = as_document(report)["watch"]["queued_requests"]
    assert queued["first"] == queued["min"] < queued["max"] == queued["last"]
    assert found(report, "scrapes-failed")
    assert report.conformant


async def test_a_check_leaves_no_connection_behind(server: Server) -> None:
    server.says("/metrics", SOUND)
    before = len(asyncio.all_tasks())

    await report_on(server.url, api=True, orca=True)

    async def ended() -> bool:
        return len(asyncio.all_tasks()) <= before

    await until(ended)


async def test_metrics_of_another_port_are_doubted_and_left_alone_where_two_servers_of_a_host_are_checked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.says("/metrics", SOUND)
    monkeypatch.setattr(probe, "TRITON_METRICS_PORT", int(server.url.rpartition(":")[2]))
    async with model_server("no metrics here", metrics_path="/elsewhere") as other:
        alone = await report_on(other.url)
        together = await check_servers([other.url, server.url], CheckOptions())

    assert alone.metrics_url == f"{server.url}/metrics"
    [doubt] = found(alone, "metrics-elsewhere")
    assert doubt.startswith(
        f"there are no metrics at {other.address}; these are from {server.url.removeprefix('http://')}"
    )
    assert [report.checked for report in together] == [False, True]
    assert not found(together[1], "metrics-elsewhere")


async def test_with_one_family_only_nobody_can_tell_whether_a_filter_is_honoured(server: Server) -> None:
    server.says("/metrics", "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 1\n")

    report = await report_on(server.url)

    assert found(report, "name-filter") == ["whether name[] is honoured cannot be told: there is no other family"]


async def test_a_server_is_watched_before_it_is_asked_for_tokens(server: Server) -> None:
    server.says("/metrics", SOUND)

    await report_on(server.url, watch_s=0.01, api=True)

    paths = [request.partition("?")[0] for request in server.asked]
    assert max(number for number, path in enumerate(paths) if path == "GET /metrics") < paths.index("GET /v1/models")
