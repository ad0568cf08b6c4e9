"""Asks an LLM for its pending iterations, again and again, on a thread of its own.

Publishing path: LLM.get_stats → LlmIterations → **LlmPoller** → Reporter.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from tidegate.publish.llm_iterations import LlmIterations
from tidegate.publish.reporter import Reporter
from tidegate.publish.statistics import BatchManagerStatistics

INTERVAL_S = 0.1
"""Time between two looks: that of the C++ backend. The LLM keeps the last 1,000 iterations, so none is missed."""
RETRY_S = 1.0
"""Time until the next look after one that failed."""
UNKNOWN_AFTER_S = 2.0
"""How long figures stand that cannot be brought up to date."""
STOP_TIMEOUT_S = 2.0
"""How long `stop` waits for a look that hangs."""

OPTION = "enable_iter_perf_stats"

_JUST_LOADED = BatchManagerStatistics(
    active_requests=0,
    scheduled_requests=0,
    context_requests=0,
    waiting_requests=0,
    used_kv_blocks=0,
    kv_utilization=0.0,
)


class StatisticsSource(Protocol):
    """The part of TensorRT-LLM's `LLM` that is used, of versions whose statistics are fetched when they are asked for.

    Older ones push them, and stop when a look has found none, until the next request: figures are frozen meanwhile.
    """

    def get_stats(self, timeout: float) -> Iterable[object]:
        """Return the pending iterations and forget them; waits up to `timeout` seconds where there are none."""


class Log(Protocol):
    """Takes one line at a time."""

    def warn(self, line: str) -> None:
        """Say what is wrong, and the way out."""

    def info(self, line: str) -> None:
        """Say what is well again."""


class LlmPoller:
    """Keeps a reporter in step with an LLM; whatever the LLM does, it neither raises nor blocks the caller.

    Not on the LLM's event loop, where each look would hold up the tokens: in some versions `get_stats_async` waits for
    its answer before it returns. Figures that cannot be brought up to date any more are withdrawn: a server that looks
    idle while it is not gets all the requests.
    """

    def __init__(self, llm: StatisticsSource, create_reporter: Callable[[], Reporter], log: Log) -> None:
        """`create_reporter`: makes a reporter whose series are published for as long as it is kept."""
        self._llm = llm
        self._create_reporter = create_reporter
        self._log = log
        self._reporter: Reporter | None = None
        self._iterations = LlmIterations()
        self._known: BatchManagerStatistics | None = None
        self._failing_since: float | None = None
        self._served_at: float | None = None
        self._silence_told = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tidegate statistics", daemon=True)

    def start(self) -> None:
        """Publish what is known of an LLM that has just been loaded, then begin to look."""
        enabled = getattr(getattr(self._llm, "args", None), OPTION, None)
        if enabled is True:
            # Nothing can run before the model is loaded, so zeros are true, and without them a gateway would pass the
            # new server over. Only where iterations are sure to follow: else the zeros would stand for ever.
            self._known = _JUST_LOADED
            self._guarded(self._publish)
        elif enabled is False:
            self._tell_silence("the LLM keeps no iteration statistics")
        self._thread.start()

    def stop(self) -> None:
        """Leave no thread behind, unless the LLM hangs; nothing is published any more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)
        if self._thread.is_alive():
            self._log.warn(f"the LLM has not answered for {STOP_TIMEOUT_S:g} s: its statistics are not waited for")
        self._known = self._reporter = None

    def served(self) -> None:
        """Note that a request has ended, so that there must be iterations. To be called from any thread."""
        if self._served_at is None:
            self._served_at = time.monotonic()

    def _run(self) -> None:
        pause = INTERVAL_S
        while not self._stopping.wait(pause):
            pause = INTERVAL_S if self._guarded(self._look) else RETRY_S

    def _look(self) -> None:
        now = time.monotonic()
        rows = self._llm.get_stats(timeout=0) or ()
        if self._stopping.is_set():
            return  # `stop` may not have waited for an answer that took so long.
        news = self._iterations.take(rows, now)
        if news is not None:
            self._known = news
        elif self._is_silent(now):
            self._tell_silence("the LLM has served requests and told of no iteration")
        if news is not None or self._reporter is None:
            self._publish()

    def _is_silent(self, now: float) -> bool:
        """Return whether a request has ended, and after a while there is no iteration yet that could have run it."""
        served_at = self._served_at
        return not self._iterations.any_seen and served_at is not None and now - served_at >= UNKNOWN_AFTER_S

    def _publish(self) -> None:
        if self._known is None:
            return
        if self._reporter is None:
            self._reporter = self._create_reporter()
        self._reporter.report(self._known)

    def _tell_silence(self, problem: str) -> None:
        self._known = self._reporter = None
        if not self._silence_told:
            self._silence_told = True
            self._log.warn(f"no load is published: {problem}. Set {OPTION}: true in model.yaml.")

    def _guarded(self, step: Callable[[], None]) -> bool:
        """Take a step; returns whether it went well. An LLM that is shut down, for one, has no statistics."""
        try:
            step()
        except Exception as error:
            now = time.monotonic()
            if self._failing_since is None:
                self._failing_since = now
                self._log.warn(f"the load cannot be published: {type(error).__name__}: {error}")
            elif now - self._failing_since >= UNKNOWN_AFTER_S:
                self._reporter = None
            return False
        if self._failing_since is not None:
            self._failing_since = None
            self._log.info("the load is published again")
        return True
