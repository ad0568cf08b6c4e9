"""What the rules say of other answers than expositions: of the API, of load headers, and of watched servers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.protocol.conformance import api, orca, reach, watching
from tidegate.protocol.conformance.api import ApiAnswer
from tidegate.protocol.conformance.evidence import gather
from tidegate.protocol.conformance.finding import Finding, Level
from tidegate.protocol.conformance.orca import OrcaAnswer, parse_orca
from tidegate.protocol.conformance.watching import Observation
from tidegate.protocol.engines import ENGINES
from tidegate.protocol.errors import ScrapeError, ScrapeFailure
from tidegate.protocol.signals import LoadSignals
from verdicts import FIXTURES, answer

COMPLETION = {"choices": [{"text": " tide"}]}
CHAT = {"choices": [{"message": {"role": "assistant", "content": "tide"}}]}


def api_finding(body: object, *, status: int | None = 200, path: str = "/v1/completions", problem: str = "") -> Finding:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return api.judge(ApiAnswer(path=path, status=status, body=raw, problem=problem, took_s=0.012))


def orca_finding(header: str | None, *, streamed: bool = False, problem: str = "") -> Finding:
    return orca.judge(OrcaAnswer(path="/v1/completions", streamed=streamed, header=header, problem=problem))


def observed(
    queued: int | None, running: int | None, kv: float | None, completions: float | None, pulse: int | None = None
) -> Observation:
    """One look; no other gauge moves than these, unless `pulse` says so."""
    signals = LoadSignals(queued_requests=queued, running_requests=running, kv_utilization=kv, observed_at=0.0)
    own_pulse = hash((queued, running, kv))
    return Observation(signals=signals, completions=completions, pulse=own_pulse if pulse is None else pulse)


def watched(*observations: Observation, failed: int = 0) -> list[str]:
    return [finding.rule for finding in watching.judge(observations, failed=failed, watched_s=10.0)]


@pytest.mark.parametrize(("path", "body"), [("/v1/completions", COMPLETION), ("/v1/chat/completions", CHAT)])
def test_an_answer_of_the_api_is_told_with_its_time(path: str, body: object) -> None:
    finding = api_finding(body, path=path)

    assert (finding.rule, finding.message) == ("api-answers", f"POST {path}: one token in 12 ms")


@pytest.mark.parametrize(
    ("body", "status", "problem", "says"),
    [
        ({"error": {"message": "no such\n model"}}, 404, "", 'status 404: {"error": {"message": "no such\\n model"}}'),
        (b"", 500, "", "status 500"),
        (b"hello", 200, "", "the answer is no JSON: hello"),
        (b"[" * 100_000, 200, "", "the answer is no JSON"),
        ([], 200, "", "the answer has no choices"),
        ({"choices": []}, 200, "", "the answer has no choices"),
        ({"choices": [1]}, 200, "", "the answer has no choices"),
        (CHAT, 200, "", "its choice has no text"),
        (b"", None, "connection refused", "connection refused"),
    ],
)
def test_what_is_no_answer_of_the_api_is_an_error_with_a_way_out(
    body: object, status: int | None, problem: str, says: str
) -> None:
    finding = api_finding(body, status=status, problem=problem)

    assert (finding.rule, finding.level) == ("api-completions", Level.ERROR)
    assert finding.message.startswith(f"POST /v1/completions: {says}")
    assert finding.fix
    assert len(finding.message) < 300


@pytest.mark.parametrize("status", [404, 405, 501, None])
def test_where_there_is_no_api_the_way_to_name_its_url_is_told(status: int | None) -> None:
    assert "URL,metrics=URL" in api_finding(b"", status=status, problem="" if status else "no connection").fix


def test_a_chat_completion_is_judged_by_a_rule_of_its_own() -> None:
    assert api_finding(COMPLETION, path="/v1/chat/completions").rule == "api-chat-completions"


@pytest.mark.parametrize("kind", ["json", "text"])
def test_the_load_headers_of_a_real_vllm_are_read(kind: str) -> None:
    head = (FIXTURES / f"vllm/orca_{kind}_loaded.headers.txt").read_text()
    [header] = [line.partition(": ")[2] for line in head.splitlines() if line.startswith("endpoint-load-metrics:")]

    assert parse_orca(header) == {"num_requests_waiting": 9.0, "kv_cache_usage_perc": 0.21259842519685035}
    assert "num_requests_waiting=9" in orca_finding(header).message


def test_triton_leaves_the_name_of_the_format_out() -> None:
    assert parse_orca('{"named_metrics": {"kv_cache_utilization": 0.25}}') == {"kv_cache_utilization": 0.25}
    assert parse_orca("named_metrics.kv_cache_utilization=0.25") == {"kv_cache_utilization": 0.25}


@pytest.mark.parametrize(
    "header",
    ["", "JSON", "JSON {", "JSON []", 'JSON {"a": "x"}', 'JSON {"a": true}', "TEXT a", "TEXT a=x", "TEXT =1", "JSON {}",
     'JSON {"a": NaN}', "TEXT a=inf", 'JSON {"a": 1' + "0" * 400 + "}", '{"a":' * 100_000],
)  # fmt: skip
def test_a_load_header_that_cannot_be_read_is_an_error(header: str) -> None:
    finding = orca_finding(header)

    assert (finding.rule, finding.level) == ("orca-malformed", Level.ERROR)
    assert len(finding.message) < 400


def test_an_answer_without_a_load_header_is_no_error() -> None:
    finding = orca_finding(None, streamed=True)

    assert (finding.rule, finding.level) == ("orca-missing", Level.INFO)
    assert "streamed" in finding.message


def test_a_request_that_failed_says_nothing_of_load_headers() -> None:
    assert orca_finding(None, problem="status 500").rule == "orca-not-tried"


@given(st.text() | st.text('{}"a:1.,=JSONTEXT ').map(lambda text: f"JSON {text}"))
def test_any_load_header_is_read_or_a_value_error(header: str) -> None:
    try:
        figures = parse_orca(header)
    except ValueError:
        return
    assert figures


def test_values_that_stand_still_while_requests_finish_are_told_of() -> None:
    assert watched(observed(3, 4, 0.5, 10), observed(3, 4, 0.5, 12)) == ["values-frozen"]


def test_a_steady_load_is_not_taken_for_frozen_values_where_another_gauge_moves() -> None:
    assert watched(observed(3, 4, 0.5, 10, pulse=1), observed(3, 4, 0.5, 12, pulse=2)) == []


def test_only_gauges_of_the_engine_are_its_pulse() -> None:
    base = "# TYPE vllm:x gauge\nvllm:x {}\n# TYPE vllm:y_total counter\nvllm:y_total {}\n# TYPE z gauge\nz {}\n"

    def pulse(*values: str) -> int:
        return watching.observe(gather(answer(base.format(*values)), ENGINES["vllm"])).pulse

    assert pulse("1", "1", "1") == pulse("1", "2", "2")
    assert pulse("NaN", "1", "1") == pulse("NaN", "1", "1")
    assert pulse("2", "1", "1") != pulse("1", "1", "1")


def test_one_signal_that_moves_is_enough() -> None:
    assert watched(observed(3, 4, 0.5, 10), observed(3, 4, 0.6, 12), observed(3, 4, 0.5, 13)) == []


def test_an_idle_look_at_each_time_is_not_taken_for_frozen_values() -> None:
    assert watched(observed(0, 0, 0.0, 10), observed(0, 0, 0.0, 12)) == ["values-always-zero"]


@pytest.mark.parametrize("completions", [10, None])
def test_while_no_request_finishes_nothing_is_said_of_frozen_values(completions: float | None) -> None:
    assert watched(observed(3, 4, 0.5, completions), observed(3, 4, 0.5, completions)) == ["nothing-finished"]


def test_scrapes_that_failed_are_told_of_even_if_all_did() -> None:
    assert watched(failed=3) == ["scrapes-failed"]


def test_movements_have_the_first_the_last_the_least_and_the_most() -> None:
    [queued, *_, completions] = watching.movements(
        [observed(3, 1, 0.5, None), observed(None, 1, 0.5, 7), observed(9, 1, 0.5, 7), observed(1, 1, 0.5, 8)]
    )

    assert (queued.name, queued.first, queued.last, queued.least, queued.most, queued.changes) == (
        "queued_requests", 3, 1, 1, 9, 2,
    )  # fmt: skip
    assert (completions.first, completions.last, completions.changes) == (7, 8, 1)


@pytest.mark.parametrize(
    ("reason", "rule"),
    [
        (ScrapeFailure.UNREACHABLE, "unreachable"),
        (ScrapeFailure.CLOSED, "unreachable"),
        (ScrapeFailure.TIMEOUT, "timeout"),
        (ScrapeFailure.BAD_STATUS, "not-an-exposition"),
        (ScrapeFailure.TOO_LARGE, "not-an-exposition"),
        (ScrapeFailure.NOT_HTTP, "not-an-exposition"),
    ],
)
def test_why_a_server_could_not_be_checked_is_told_with_a_way_out(reason: ScrapeFailure, rule: str) -> None:
    finding = reach.judge(ScrapeError("so it is", reason=reason, url="http://gpu-1:8000/metrics"))

    assert (finding.rule, finding.message) == (rule, "http://gpu-1:8000/metrics: so it is")
    assert finding.fix


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[]", True),
        (b' [{"numActiveRequests": 1}]', True),
        (b'[{"iter": 1}]', False),
        (b"[1]", False),
        (b"[", False),
        (b"[" * 100_000, False),
        (b"{}", False),
        (b"vllm:x 1\n", False),
    ],
)
def test_iteration_statistics_are_told_from_other_bodies(body: bytes, expected: bool) -> None:
    assert reach.is_statistics(body) is expected
