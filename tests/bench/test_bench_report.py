"""Results → summary, table, verdict."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tidegate.bench.report import Percentiles, RunSummary, render_comparison, summarize, verdict
from tidegate.bench.results import ErrorKind, RequestResult

GOLDEN = Path(__file__).parent / "golden" / "comparison.txt"


def answered(at_s: float = 0.0, ttft_s: float = 0.2, served_by: str = "sim-1", tokens: int = 11) -> RequestResult:
    return RequestResult(
        at_s=at_s,
        late_s=0.001,
        status=200,
        error=None,
        ttft_s=ttft_s,
        e2e_s=ttft_s + 1.0,
        tpot_s=0.1,
        output_tokens=tokens,
        served_by=served_by,
    )


def failed(kind: ErrorKind, status: int | None = None) -> RequestResult:
    return replace(
        answered(), error=kind, status=status, ttft_s=None, tpot_s=None, e2e_s=9.0, output_tokens=0, served_by=None
    )


def run(name: str, p50: float, p90: float, p99: float, errors: int = 0) -> RunSummary:
    return replace(
        summarize(name, [answered()]),
        requests=200,
        ttft=Percentiles(p50=p50, p90=p90, p99=p99),
        errors={"status 503": errors} if errors else {},
    )


def rendered(*runs: RunSummary) -> str:
    out = StringIO()
    Console(file=out, width=100, color_system=None).print(render_comparison(runs, title="Same requests, twice"))
    return out.getvalue()


def test_percentiles_interpolate_linearly() -> None:
    ttft = summarize("run", [answered(ttft_s=1), answered(ttft_s=2)]).ttft

    assert ttft is not None
    assert (ttft.p50, ttft.p90, ttft.p99) == pytest.approx((1.5, 1.9, 1.99))


def test_failed_requests_count_as_errors_by_kind_and_not_in_latencies() -> None:
    broken = replace(answered(ttft_s=50.0), error=ErrorKind.TRUNCATED)
    refused = failed(ErrorKind.STATUS, 503)

    summary = summarize("run", [answered(), broken, refused, refused, failed(ErrorKind.STATUS, 429)])

    assert summary.errors == {"status 503": 2, "truncated": 1, "status 429": 1}
    assert summary.failed == 4
    assert summary.requests == 5
    assert summary.ttft is not None
    assert summary.ttft.p99 == 0.2
    assert summary.e2e is not None
    assert summary.e2e.p99 == 1.2
    assert summary.requests_per_endpoint == {"sim-1": 2}


def test_tokens_per_second_are_over_the_time_from_first_due_to_last_ended() -> None:
    summary = summarize("run", [answered(at_s=10.0, tokens=30), answered(at_s=12.8, tokens=10)])

    assert summary.output_tokens_per_s == pytest.approx(40 / 4.0)


def test_a_run_without_answers_has_no_latencies() -> None:
    for summary in (summarize("none", []), summarize("all failed", [failed(ErrorKind.CONNECT)])):
        assert (summary.ttft, summary.tpot, summary.e2e) == (None, None, None)
        assert "TTFT p50" in rendered(summary)


def test_the_table_is_the_golden_file() -> None:
    baseline = [answered(at_s=k, ttft_s=0.1 + k / 10, served_by=f"sim-{k % 2 + 1}") for k in range(130)]
    candidate = [answered(at_s=k, ttft_s=0.004 + k / 1e5, served_by=f"sim-{k % 3 + 1}") for k in range(130)]
    candidate[5] = failed(ErrorKind.STATUS, 503)
    candidate[6] = failed(ErrorKind.CONNECT)
    candidate[7] = failed(ErrorKind.CONNECT)

    assert rendered(summarize("round robin", baseline), summarize("tidegate", candidate)) == GOLDEN.read_text()


def test_names_are_shown_as_they_are() -> None:
    names = ("[fd00::1]:8000", "[/x]", "fd00::1234:5", "[red]")

    shown = rendered(*(summarize(f"run {name}", [answered(served_by=name)]) for name in names))

    assert not [text for name in names for text in (f" run {name} ", f" served by {name} ") if text not in shown]


@pytest.mark.parametrize(
    ("candidate", "sentence"),
    [
        (run("b", 0.10, 0.30, 0.50), "b is better than a: TTFT p50 2.00x faster, p90 2.00x faster, p99 2.00x faster;"),
        (run("b", 0.40, 0.90, 2.50), "b is worse than a: TTFT p50 2.00x slower, p90 1.50x slower, p99 2.50x slower;"),
        (run("b", 0.40, 0.60, 0.50), "b is in part better, in part worse than a: TTFT p50 2.00x slower, p90 a tie,"),
        (run("b", 0.208, 0.59, 0.96), "b ties with a: TTFT p50 a tie, p90 a tie, p99 a tie;"),
        (run("b", 0.20, 0.60, 0.80), "b is better than a: TTFT p50 a tie, p90 a tie, p99 1.25x faster;"),
    ],
)
def test_the_verdict_says_which_run_was_better_whichever_it_is(candidate: RunSummary, sentence: str) -> None:
    assert verdict(run("a", 0.2, 0.6, 1.0), candidate).startswith(sentence)


@pytest.mark.parametrize(
    ("before", "after", "lead"),
    [(0, 3, "b is in part better, in part worse than a"), (3, 0, "b is better than a"), (3, 3, "b is better than a")],
)
def test_a_faster_run_with_more_failures_is_not_called_better(before: int, after: int, lead: str) -> None:
    sentence = verdict(run("a", 0.2, 0.6, 1.0, errors=before), run("b", 0.1, 0.3, 0.5, errors=after))

    assert sentence.startswith(lead)
    assert sentence.endswith(f"{after} of 200 requests failed, against {before} of 200.")


def test_faster_first_tokens_do_not_outweigh_slower_later_ones() -> None:
    slower = replace(run("b", 0.1, 0.3, 0.5), tpot=Percentiles(p50=0.1, p90=0.126, p99=0.2))

    sentence = verdict(replace(run("a", 0.2, 0.6, 1.0), tpot=Percentiles(p50=0.1, p90=0.1, p99=0.1)), slower)

    assert sentence.startswith("b is in part better, in part worse than a: TTFT p50 2.00x faster")
    assert "; TPOT p50 a tie, p90 1.26x slower, p99 2.00x slower; 0 of" in sentence


def test_there_is_no_verdict_over_a_run_that_answered_nothing() -> None:
    silent = summarize("b", [failed(ErrorKind.CONNECT)])

    for pair in ((run("a", 1, 1, 1), silent), (silent, run("a", 1, 1, 1))):
        assert verdict(*pair) == "No verdict: none of b's 1 requests was answered."


_TTFTS = st.tuples(*[st.floats(1e-3, 1e3)] * 3)


@given(_TTFTS, _TTFTS)
def test_swapping_the_runs_turns_the_verdict_round(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> None:
    a, b = run("a", *first), run("b", *second)

    forth, back = verdict(a, b), verdict(b, a)

    swap = {"faster": "slower", "slower": "faster"}
    turned = " ".join(swap.get(word.rstrip(",;"), word.rstrip(",;")) for word in forth.split(": ")[1].split())
    assert turned == back.split(": ")[1].replace(",", "").replace(";", "")
    assert ("is better" in forth) == ("is worse" in back)
