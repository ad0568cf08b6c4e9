"""The metrics of a simulated server, as its engine would publish them.

Flow: BatchLoad of each iteration → **ServerMetrics** → exposition. Iterations come a hundred times a second and
scrapes less often, so only the last load is kept, and rendered when asked for.
"""

import json
from collections import deque
from datetime import datetime
from typing import Any, Protocol

from tidegate.frontend.generator import Usage
from tidegate.protocol.composites import used_fraction, waiting_requests
from tidegate.protocol.engines import EngineMapping
from tidegate.protocol.signals import LoadSignals
from tidegate.publish.dialects import render_signals
from tidegate.publish.prometheus import PrometheusBackend
from tidegate.publish.reporter import Reporter
from tidegate.publish.statistics import parse_statistics
from tidegate.simulator.iteration import BatchLoad
from tidegate.simulator.limits import Limits
from tidegate.simulator.statistics import render_statistics

MAX_KEPT_ITERATIONS = 1000
"""Iterations that trtllm-serve keeps for whoever asks next; older ones are dropped."""


class ServerMetrics(Protocol):
    """Takes what the batch manager says, gives it to whoever scrapes."""

    def observe_iteration(self, load: BatchLoad) -> None:
        """Note that an iteration has ended."""

    def observe_idle(self, load: BatchLoad) -> None:
        """Note that nothing runs any more."""

    def observe_finished(self, usage: Usage) -> None:
        """Note that a request has got its whole answer."""

    def exposition(self) -> bytes:
        """Return the metrics in the Prometheus text format."""


class TritonMetrics:
    """Triton with the TensorRT-LLM backend: the iteration's JSON statistics through the publisher's own reporter."""

    def __init__(self, limits: Limits, *, model: str) -> None:
        self._limits = limits
        self._backend = PrometheusBackend()
        self._reporter = Reporter(self._backend, model=model, version="1")
        self._last: tuple[BatchLoad, datetime] | None = None

    def observe_iteration(self, load: BatchLoad) -> None:
        """Keep the load of an iteration that ended now."""
        self._last = load, datetime.now().astimezone()

    def observe_idle(self, load: BatchLoad) -> None:
        """Keep the load of the idle server."""
        self.observe_iteration(load)

    def observe_finished(self, usage: Usage) -> None:
        """Count the request's lengths in the histograms."""
        self._reporter.observe(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)

    def exposition(self) -> bytes:
        """Return the `nv_trt_llm_*` families as of the last iteration."""
        if self._last is not None:
            load, ended_at = self._last
            self._reporter.report(parse_statistics(render_statistics(load, self._limits, ended_at)))
        return self._backend.exposition()


class EngineMetrics:
    """Any other engine: the signals of the Model Server Protocol under its names."""

    def __init__(self, engine: EngineMapping, limits: Limits, *, model: str, kept_iterations: int = 0) -> None:
        self._engine = engine
        self._limits = limits
        self._model = model
        self._signals = LoadSignals(observed_at=0.0)
        self._pending: deque[tuple[BatchLoad, datetime]] = deque(maxlen=kept_iterations)
        self._left = 0

    def observe_iteration(self, load: BatchLoad) -> None:
        """Keep the load of an iteration that ended now."""
        self._pending.append((load, datetime.now().astimezone()))
        self._left = load.active_requests - load.completed_requests + load.queued_requests
        self._observe(load)

    def observe_idle(self, load: BatchLoad) -> None:
        """Keep the load of the idle server."""
        if self._left:
            # The requests were cancelled. TensorRT-LLM drops those in an iteration, and so has statistics of it.
            self.observe_iteration(load)
        self._observe(load)

    def _observe(self, load: BatchLoad) -> None:
        self._signals = LoadSignals(
            queued_requests=waiting_requests(load.active_requests, load.scheduled_requests, load.queued_requests),
            running_requests=load.scheduled_requests,
            kv_utilization=used_fraction(load.used_blocks, self._limits.num_blocks),
            block_size=self._limits.tokens_per_block,
            num_blocks=self._limits.num_blocks,
            observed_at=0.0,  # An exposition has no time of its own.
        )

    def observe_finished(self, usage: Usage) -> None:
        """Nothing: no signal of the protocol counts finished requests."""

    def exposition(self) -> bytes:
        """Return the signals as of the last iteration."""
        return render_signals(self._signals, self._engine, model=self._model)

    def drain_statistics(self) -> bytes:
        """Return the iterations since the last call as a JSON array, as trtllm-serve's `/metrics` does."""
        drained: list[dict[str, Any]] = []
        while self._pending:
            load, ended_at = self._pending.popleft()
            drained.append(render_statistics(load, self._limits, ended_at))
        return json.dumps(drained).encode()
