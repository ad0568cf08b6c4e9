"""An LLM that is asked again and again → series that come, change, are withdrawn and come back."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from tidegate.publish.families import MetricFamily
from tidegate.publish.llm_poller import INTERVAL_S, STOP_TIMEOUT_S, LlmPoller
from tidegate.publish.reporter import Reporter

ZEROS = {"active": 0, "scheduled": 0, "context": 0, "waiting": 0}
Row = Mapping[str, Any]


class StandInLLM:
    """Gives out what lies ready; `problem` is raised as long as there is one."""

    def __init__(self, enabled: bool | None = True) -> None:
        if enabled is not None:
            self.args = SimpleNamespace(enable_iter_perf_stats=enabled)
        self.pending: list[Row] = []
        self.problem: Exception | None = None
        self.looks = 0
        self.answers = threading.Event()
        self.answers.set()

    def get_stats(self, timeout: float) -> list[Row]:
        assert timeout == 0
        self.looks += 1
        self.answers.wait()
        if self.problem is not None:
            raise self.problem
        rows, self.pending = self.pending, []
        return rows


class Published:
    """Stands for Triton: a series is there as long as a reporter that made it is."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.refuses: Exception | None = None
        self.sets = 0

    def reporter(self) -> Reporter:
        if self.refuses:
            raise self.refuses
        return Reporter(Backend(self), model="llama", version="1")


class Backend:
    def __init__(self, published: Published) -> None:
        self.published = published

    def create_series(self, family: MetricFamily, labels: Mapping[str, str]) -> "OneSeries":
        name = labels[family.label]
        self.published.values[name] = 0
        return OneSeries(self.published, name)

    def __del__(self) -> None:
        self.published.values.clear()


class OneSeries:
    def __init__(self, published: Published, name: str) -> None:
        self.published, self.name = published, name

    def set(self, value: float, /) -> None:
        self.published.sets += 1
        self.published.values[self.name] = value

    def increment(self, value: float, /) -> None:
        raise AssertionError("no counters here")

    def observe(self, value: float, /) -> None:
        raise AssertionError("no histograms here")


class Lines(list[str]):
    warn = info = list.append


@contextmanager
def polling(llm: StandInLLM) -> Iterator[tuple[LlmPoller, Published, Lines]]:
    published, lines = Published(), Lines()
    poller = LlmPoller(llm, published.reporter, lines)
    poller.start()
    try:
        yield poller, published, lines
    finally:
        llm.answers.set()
        poller.stop()


def until(condition: Callable[[], bool], within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def row(active: int, ended: int = 0, scheduled: int = 1) -> Row:
    batch = {"numScheduledRequests": scheduled, "numContextRequests": 0}
    return {"numActiveRequests": active, "numCompletedRequests": ended, "inflightBatchingStats": batch}


def requests(published: Published) -> dict[str, float]:
    return {name: value for name, value in published.values.items() if name in ZEROS}


def test_an_llm_just_loaded_shows_zeros_at_once_where_its_statistics_are_on() -> None:
    with polling(StandInLLM()) as (_, published, _):
        assert published.values == {**ZEROS, "used": 0, "fraction": 0}


def test_an_llm_that_does_not_say_whether_they_are_on_shows_nothing_before_its_first_iteration() -> None:
    llm = StandInLLM(enabled=None)
    with polling(llm) as (_, published, lines):
        until(lambda: llm.looks > 2)
        assert published.values == {}

        llm.pending = [row(active=4)]
        until(lambda: requests(published) == {"active": 4, "scheduled": 1, "context": 0, "waiting": 3})
        assert lines == []


def test_the_load_is_followed_and_falls_to_zero_when_all_has_ended() -> None:
    llm = StandInLLM()
    with polling(llm) as (_, published, _):
        llm.pending = [row(active=9), row(active=4)]
        until(lambda: requests(published) == {"active": 4, "scheduled": 1, "context": 0, "waiting": 3})
        llm.pending = [row(active=1, ended=1)]
        until(lambda: requests(published) == ZEROS)


def test_an_idle_llm_is_asked_at_the_interval_and_nothing_is_written() -> None:
    llm = StandInLLM()
    with polling(llm) as (_, published, _):
        start, looks = time.monotonic(), llm.looks
        until(lambda: llm.looks >= looks + 5)
        assert time.monotonic() - start >= 4 * INTERVAL_S
        assert published.sets == 0


def test_switched_off_statistics_are_named_once_with_their_option_and_nothing_is_published() -> None:
    llm = StandInLLM(enabled=False)
    with polling(llm) as (poller, published, lines):
        poller.served()
        until(lambda: llm.looks > 30)
        assert published.values == {}
        [line] = lines
        assert "no load is published: the LLM keeps no iteration statistics" in line
        assert "enable_iter_perf_stats: true" in line


def test_an_llm_that_serves_and_tells_nothing_does_not_look_idle() -> None:
    llm = StandInLLM()
    with polling(llm) as (poller, published, lines):
        poller.served()
        until(lambda: len(lines) == 1)
        assert "told of no iteration" in lines[0]
        assert published.values == {}

        llm.pending = [row(active=4)]
        until(lambda: requests(published).get("waiting") == 3)
        assert len(lines) == 1


def test_an_llm_that_raises_is_reported_once_then_its_figures_are_withdrawn_and_come_back() -> None:
    llm = StandInLLM()
    with polling(llm) as (_, published, lines):
        llm.pending = [row(active=4)]
        until(lambda: requests(published).get("waiting") == 3)

        llm.problem = AttributeError("'NoneType' object has no attribute 'get_stats'")
        until(lambda: len(lines) == 1)
        assert requests(published)["waiting"] == 3  # one failed look is no reason to forget
        until(lambda: not published.values)
        assert lines == ["the load cannot be published: AttributeError: 'NoneType' object has no attribute 'get_stats'"]

        llm.problem = None
        until(lambda: requests(published).get("waiting") == 3)
        assert lines[1:] == ["the load is published again"]


def test_a_triton_without_metrics_costs_one_line() -> None:
    llm, published, lines = StandInLLM(), Published(), Lines()
    published.refuses = RuntimeError("metrics are off")
    poller = LlmPoller(llm, published.reporter, lines)

    poller.start()
    until(lambda: llm.looks > 1)
    poller.stop()

    assert lines == ["the load cannot be published: RuntimeError: metrics are off"]


def test_stopping_leaves_no_thread_and_may_be_repeated() -> None:
    before = threading.active_count()
    llm = StandInLLM()
    with polling(llm) as (poller, published, lines):
        assert threading.active_count() == before + 1
        assert requests(published) == ZEROS
        poller.stop()
        assert threading.active_count() == before
        assert published.values == {}
        poller.stop()
    assert lines == []


def test_what_was_never_started_can_be_stopped() -> None:
    LlmPoller(StandInLLM(), Published().reporter, Lines()).stop()


def test_an_llm_that_hangs_does_not_hold_up_the_end() -> None:
    llm = StandInLLM()
    with polling(llm) as (poller, published, lines):
        llm.answers.clear()
        looks = llm.looks
        until(lambda: llm.looks > looks)
        start = time.monotonic()
        poller.stop()
        assert time.monotonic() - start < STOP_TIMEOUT_S + 1
        assert "has not answered" in lines[0]

        llm.pending.append(row(active=3))
        llm.answers.set()
        poller.stop()
        assert llm.pending == []
        assert published.values == {}
