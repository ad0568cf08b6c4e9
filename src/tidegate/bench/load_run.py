"""One run of `tidegate bench load`, from the first request to the figures.

Bench: LoadSetup → arrivals → client, beside samples of CPU time → results → **LoadFigures** → table, JSON, plots.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tidegate.bench.client import OpenLoop
from tidegate.bench.cpu import read_core_wait_s, read_cpu_s
from tidegate.bench.load_compare import AddedDurations, compare
from tidegate.bench.load_figures import CpuUse, GeneratorFigures, TargetFigures, figures_of, generator_figures
from tidegate.bench.load_plan import LoadPlan, plan_errands
from tidegate.bench.results import RequestResult
from tidegate.bench.slo import Slo
from tidegate.bench.target import Target
from tidegate.protocol.errors import ConfigError

TICK_S = 0.25
MEASURES = ("ttft", "tpot", "e2e")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSetup:
    """What is run, and against whom."""

    plan: LoadPlan
    targets: Sequence[Target]
    """One, or the one that is measured and the one it is measured against."""
    slo: Slo | None = None
    timeout_s: float = 120.0
    max_open: int
    cpu_of: int | None = None
    """Pid of the process behind the first target whose CPU time is taken."""
    label: str = ""

    @property
    def names(self) -> list[str]:
        """What tables call the targets."""
        names = [target.authority for target in self.targets]
        return names if len(set(names)) == len(names) else [str(target.api) for target in self.targets]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands; counts of requests."""

    elapsed_s: float
    total: int
    ended: int
    failed: int
    under_way: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFigures:
    """All that was measured. The warm-up is not in it."""

    setup: LoadSetup
    planned: int
    """Requests that were to be counted."""
    cut_off: int
    """Requests that were under way when the run was stopped early."""
    targets: Sequence[TargetFigures]
    results: Sequence[Sequence[RequestResult]]
    """Of each target, by when they were due."""
    warm_up: Sequence[Sequence[RequestResult]]
    """Those of the warm-up, which no figure is of, likewise."""
    generator: GeneratorFigures
    server_cpu: CpuUse | None
    """Of the process the user named; None when none was, or when it has ended."""
    added: Mapping[str, AddedDurations | None]
    """What the first target adds to the second, by measure; empty for one target."""

    @property
    def silent(self) -> Sequence[TargetFigures]:
        """The targets that gave no good answer at all."""
        return [target for target in self.targets if target.failed == target.requests]


@dataclass(frozen=True, slots=True)
class _Mark:
    """Readings at one moment."""

    at: float
    own_cpu_s: float
    core_wait_s: float | None
    server_cpu_s: float | None
    streamed: Sequence[int]


class LoadRun:
    """A run. `figures` can be asked for also when it was cancelled: of the requests that had ended."""

    def __init__(self, setup: LoadSetup) -> None:
        """Draw the workload. Raises ConfigError when it cannot be, or when there is no process to take CPU time of."""
        if setup.cpu_of is not None and read_cpu_s(setup.cpu_of) is None:
            raise ConfigError(f"there is no process {setup.cpu_of}", fix="Give the pid of a server.", key="--cpu-of")
        self._setup = setup
        self._errands = plan_errands(setup.plan, setup.targets)
        self._failed = 0
        self._load = OpenLoop(
            self._errands, timeout_s=setup.timeout_s, max_open=setup.max_open, on_result=self._note_failure
        )
        self._cut_off = 0
        self._first = self._last = self._mark()

    @property
    def requests(self) -> int:
        """How many there are, those of the warm-up too."""
        return len(self._errands)

    async def run(self, on_tick: Callable[[Progress], None]) -> None:
        """Send everything and wait for all answers; tells a few times a second where it stands."""
        self._first = self._mark()
        counting_from = self._first.at + self._setup.plan.warm_up_s
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(self._load.run(), name="load")
            try:
                counting = False
                while not sending.done():
                    await asyncio.wait({sending}, timeout=self._until_tick(counting, counting_from))
                    if not counting and time.monotonic() >= counting_from:
                        counting, self._first = True, self._mark()
                    on_tick(self._progress(counting_from))
            finally:
                self._last = self._mark()
                self._cut_off = self._load.open

    def figures(self) -> LoadFigures:
        """Return the figures of what has ended after the warm-up."""
        setup = self._setup
        begin = setup.plan.warm_up_s
        ended = [self._ended(target) for target in setup.targets]
        warm_up = [[result for result in of if result.at_s < begin] for of in ended]
        results = [[result for result in of if result.at_s >= begin] for of in ended]
        return LoadFigures(
            setup=setup,
            planned=sum(errand.arrival.at_s >= begin for errand in self._errands),
            cut_off=self._cut_off,
            targets=[
                figures_of(name, target, of, slo=setup.slo, warm_up=before)
                for name, target, of, before in zip(setup.names, setup.targets, results, warm_up, strict=True)
            ],
            results=results,
            warm_up=warm_up,
            generator=generator_figures(
                [result for of in results for result in of],
                self._own_cpu(),
                _difference(self._last.core_wait_s, self._first.core_wait_s),
            ),
            server_cpu=self._server_cpu(),
            added={name: compare(self._pairs(name)) for name in MEASURES} if len(setup.targets) == 2 else {},
        )

    def _ended(self, target: Target) -> list[RequestResult]:
        """Return the results of one target, by when they were due."""
        return [result for i, result in sorted(self._load.results.items()) if self._errands[i].target == target]

    def _pairs(self, measure: str) -> list[tuple[float, float]]:
        """Return a measure of both requests of each pair, of the first target and of the second; seconds."""
        pairs = []
        for i in range(0, len(self._errands) - 1, 2):
            if self._errands[i].arrival.at_s < self._setup.plan.warm_up_s:
                continue
            values = [_measured(self._load.results.get(k), measure) for k in (i, i + 1)]
            if self._errands[i].target != self._setup.targets[0]:
                values.reverse()
            if values[0] is not None and values[1] is not None:
                pairs.append((values[0], values[1]))
        return pairs

    def _note_failure(self, result: RequestResult) -> None:
        self._failed += result.error is not None

    def _until_tick(self, counting: bool, counting_from: float) -> float:
        return TICK_S if counting else max(0.0, min(TICK_S, counting_from - time.monotonic()))

    def _progress(self, counting_from: float) -> Progress:
        return Progress(
            elapsed_s=time.monotonic() - counting_from + self._setup.plan.warm_up_s,
            total=len(self._errands),
            ended=len(self._load.results),
            failed=self._failed,
            under_way=self._load.open,
        )

    def _mark(self) -> _Mark:
        cpu_of = self._setup.cpu_of
        return _Mark(
            at=time.monotonic(),
            own_cpu_s=time.process_time(),
            core_wait_s=read_core_wait_s(),
            server_cpu_s=None if cpu_of is None else read_cpu_s(cpu_of),
            streamed=[self._load.streamed(target) for target in self._setup.targets],
        )

    def _own_cpu(self) -> CpuUse:
        first, last = self._first, self._last
        return CpuUse(
            seconds=last.own_cpu_s - first.own_cpu_s,
            elapsed_s=last.at - first.at,
            streamed=sum(last.streamed) - sum(first.streamed),
        )

    def _server_cpu(self) -> CpuUse | None:
        first, last = self._first, self._last
        seconds = _difference(last.server_cpu_s, first.server_cpu_s)
        if seconds is None:
            return None
        return CpuUse(seconds=seconds, elapsed_s=last.at - first.at, streamed=last.streamed[0] - first.streamed[0])


def _difference(last: float | None, first: float | None) -> float | None:
    return None if last is None or first is None else last - first


def _measured(result: RequestResult | None, measure: str) -> float | None:
    if result is None or result.error is not None:
        return None
    seconds: float | None = getattr(result, f"{measure}_s")
    return seconds
