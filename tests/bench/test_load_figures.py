"""Results of a load run → figures, goodput, differences."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.bench.load_compare import compare
from tidegate.bench.load_figures import (
    CpuUse,
    Durations,
    concurrency,
    durations_of,
    figures_of,
    generator_figures,
)
from tidegate.bench.results import ErrorKind, RequestResult
from tidegate.bench.slo import Slo, parse_slo
from tidegate.bench.target import parse_target
from tidegate.protocol.errors import ConfigError

TARGET = parse_target("http://127.0.0.1:9000", model="m")
IDLE = CpuUse(seconds=0.1, elapsed_s=10.0, streamed=1000)


def answered(
    at_s: float = 0.0, *, ttft_s: float = 0.2, tpot_s: float | None = 0.02, e2e_s: float = 1.0
) -> RequestResult:
    return RequestResult(
        at_s=at_s,
        late_s=0.001,
        status=200,
        error=None,
        ttft_s=ttft_s,
        e2e_s=e2e_s,
        tpot_s=tpot_s,
        output_tokens=10,
        served_by="a",
        counted=True,
        prompt_tokens=30,
        cached_tokens=12,
    )


def failed(kind: ErrorKind = ErrorKind.TIMEOUT, *, status: int | None = None, at_s: float = 0.0) -> RequestResult:
    return RequestResult(
        at_s=at_s,
        late_s=0.0,
        status=status,
        error=kind,
        detail=f"{kind} at {at_s:g}",
        ttft_s=0.01,
        e2e_s=5.0,
        tpot_s=0.01,
        output_tokens=2,
        served_by=None,
    )


def test_latencies_are_of_successes_and_failures_are_counted_by_kind() -> None:
    results = [answered(), failed(ErrorKind.STATUS, status=503), failed(at_s=1), failed(at_s=2), answered(ttft_s=0.4)]

    figures = figures_of("a", TARGET, results, slo=None)

    assert figures.errors == {"timeout": 2, "status 503": 1}
    assert figures.error_details == {"timeout": "timeout at 1", "status 503": "status at 0"}
    assert (figures.requests, figures.failed, figures.counted_by_server) == (5, 3, 2)
    assert figures.ttft is not None
    assert (figures.ttft.count, figures.ttft.mean_s) == (2, pytest.approx(0.3))
    assert (figures.output_tokens, figures.tokens_per_answer) == (26, 10)
    assert (figures.input_tokens, figures.cached_tokens) == (60, 24)


def test_rates_are_over_the_time_from_the_first_due_to_the_last_ended() -> None:
    figures = figures_of("a", TARGET, [answered(10.0), answered(13.0), failed(at_s=12.0)], slo=Slo(ttft_s=1.0))

    assert figures.elapsed_s == pytest.approx(7.0)
    assert figures.answered_per_s == pytest.approx(2 / 7)
    assert figures.goodput_per_s == pytest.approx(2 / 7)
    assert figures.output_tokens_per_s == pytest.approx(22 / 7)


def test_nothing_gives_no_figures_and_no_error() -> None:
    figures = figures_of("a", TARGET, [], slo=Slo(ttft_s=1.0))

    assert (figures.ttft, figures.input_tokens, figures.peak_open) == (None, None, 0)
    assert (figures.answered_per_s, figures.goodput_per_s) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("result", "kept"),
    [
        (answered(ttft_s=0.5, tpot_s=0.05), True),
        (answered(ttft_s=0.501), False),
        (answered(tpot_s=0.051), False),
        (answered(e2e_s=2.1), False),
        (answered(tpot_s=None), True),  # of a single token
        (replace(answered(), ttft_s=None), False),  # of none
        (failed(), False),
    ],
)
def test_a_good_answer_keeps_every_limit(result: RequestResult, kept: bool) -> None:
    assert parse_slo("ttft=0.5, tpot=0.05,e2e=2").is_kept(result) is kept


def test_limits_that_are_not_there_are_kept() -> None:
    assert parse_slo("tpot=0.05") == Slo(tpot_s=0.05)
    assert str(parse_slo("e2e=2,ttft=0.5")) == "ttft <= 0.5 s, e2e <= 2 s"
    assert Slo().is_kept(answered(e2e_s=1e9))


@pytest.mark.parametrize(
    "text", ["ttft", "ttft=", "ttft=-1", "ttft=1s", "itl=1", "ttft=1,,tpot=1", "ttft=1,ttft=2", "ttft=nan"]
)
def test_what_is_no_objective_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape("ttft=0.5,tpot=0.05")):
        parse_slo(text)


def test_a_percentile_is_doubtful_with_fewer_than_five_beyond_it() -> None:
    def doubtful(count: int) -> list[int]:
        durations = Durations(count=count, mean_s=1, p50_s=1, p90_s=1, p99_s=1)
        return [percent for percent in (50, 90, 99) if durations.is_doubtful(percent)]

    assert [doubtful(count) for count in (9, 10, 49, 50, 499, 500)] == [
        [50, 90, 99],
        [90, 99],
        [90, 99],
        [99],
        [99],
        [],
    ]


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e6)), max_size=40))
def test_durations_are_those_that_are_known(values: list[float | None]) -> None:
    durations = durations_of(values)

    known = sorted(value for value in values if value is not None)
    if durations is None:
        assert not known
    else:
        assert durations.count == len(known)
        assert known[0] <= durations.p50_s <= durations.p90_s <= durations.p99_s <= known[-1]


def test_requests_under_way_are_counted_from_when_they_were_sent() -> None:
    unsent = replace(failed(ErrorKind.UNSENT, at_s=0.5), e2e_s=0.0)
    times, under_way = concurrency([answered(0.0, e2e_s=2.0), answered(1.0, e2e_s=2.0), unsent])

    assert times == pytest.approx([0.001, 1.001, 2.0, 3.0])
    assert under_way == [1, 2, 1, 0]


@pytest.mark.parametrize(
    ("results", "cpu", "words"),
    [
        ([answered()] * 100, IDLE, []),
        ([replace(answered(), late_s=0.2)] * 5 + [answered()] * 95, IDLE, ["up to 200 ms late"]),
        ([answered()], replace(IDLE, seconds=9.5), ["took 0.95 cores"]),
        ([answered(), failed(ErrorKind.UNSENT)], IDLE, ["1 requests were not sent"]),
    ],
)
def test_a_generator_that_does_not_keep_up_says_so(results: list[RequestResult], cpu: CpuUse, words: list[str]) -> None:
    warnings = generator_figures(results, cpu).warnings

    assert len(warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, warnings, strict=True))


def test_cpu_is_told_per_event_and_not_where_none_came() -> None:
    assert IDLE.per_token_s == pytest.approx(1e-4)
    assert IDLE.cores == pytest.approx(0.01)
    assert replace(IDLE, streamed=0).per_token_s is None
    assert replace(IDLE, elapsed_s=0.0).cores == 0.0


def test_pairs_cancel_what_both_of_them_met() -> None:
    rng = np.random.default_rng(5)
    weather = rng.exponential(1.0, 400)  # of the server, far above what is looked for
    pairs = [(w + 0.010 + rng.normal(0, 0.002), w + rng.normal(0, 0.002)) for w in weather.tolist()]

    added = compare(pairs)

    assert added is not None
    assert added.pairs == 400
    assert added.mean.low_s < 0.010 < added.mean.high_s
    assert added.mean.high_s - added.mean.low_s < 0.001
    assert added.mean.is_certain


def test_no_difference_is_not_certain() -> None:
    rng = np.random.default_rng(6)

    added = compare([(a, b) for a, b in rng.normal(1.0, 0.1, (200, 2)).tolist()])

    assert added is not None
    assert not added.mean.is_certain
    assert added.p50.low_s < added.p50.seconds < added.p50.high_s


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=20))
def test_swapping_the_targets_turns_the_difference_round(pairs: list[tuple[float, float]]) -> None:
    forth, back = compare(pairs), compare([(b, a) for a, b in pairs])

    if forth is None or back is None:
        assert not pairs
    else:
        assert forth.p90.seconds == pytest.approx(-back.p90.seconds)
        assert (forth.p90.low_s, forth.p90.high_s) == pytest.approx((-back.p90.high_s, -back.p90.low_s))


def test_what_is_left_of_the_warm_up_is_under_way_beside_the_others_and_in_no_other_figure() -> None:
    before = [answered(0.0, ttft_s=9.0, e2e_s=3.0), answered(0.5, e2e_s=3.0)]

    figures = figures_of("a", TARGET, [answered(2.0), answered(4.0)], slo=None, warm_up=before)

    assert (figures.requests, figures.peak_open) == (2, 3)
    assert figures.ttft is not None
    assert figures.ttft.mean_s == pytest.approx(0.2)
    assert (figures.elapsed_s, figures.drain_s) == (pytest.approx(3.0), pytest.approx(1.0))
