"""Results of a load run → its figures, for each target and for the generator itself.

Bench: results → **LoadFigures** → table, JSON, plots. Pure.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tidegate.bench.report import error_kind
from tidegate.bench.results import ErrorKind, RequestResult
from tidegate.bench.slo import Slo
from tidegate.bench.target import Target

FEWEST_BEYOND = 5
"""A percentile with fewer observations beyond it is doubtful: one slow request more or less would move it."""
LATE_P99_S = 0.01
"""A generator that is later than this at p99 was itself the bottleneck."""
BUSY_CORES = 0.9
"""Its one event loop has a core at most: near it, it sees tokens later than they come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """What many durations amount to; seconds. Percentiles are interpolated linearly (type 7 of Hyndman and Fan)."""

    count: int
    mean_s: float
    p50_s: float
    p90_s: float
    p99_s: float

    def is_doubtful(self, percent: float) -> bool:
        """Return whether there are too few of them for this percentile."""
        return round(self.count * (100 - percent) / 100, 6) < FEWEST_BEYOND


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuUse:
    """CPU of a process while tokens were streamed."""

    seconds: float
    """CPU seconds."""
    elapsed_s: float
    streamed: int
    """Events with text that came meanwhile."""

    @property
    def cores(self) -> float:
        """CPU seconds per second."""
        return self.seconds / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def per_token_s(self) -> float | None:
        """CPU seconds per streamed event with text; None when none came."""
        return self.seconds / self.streamed if self.streamed else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFigures:
    """What one target did. Latencies are of requests that succeeded: read them together with `errors`."""

    name: str
    target: Target
    requests: int
    """Those that ended after the warm-up, in whichever way."""
    errors: Mapping[str, int]
    """Kind of failure → requests, most frequent first; a bad status is a kind of its own."""
    error_details: Mapping[str, str]
    """Kind of failure → what the first of them said."""
    elapsed_s: float
    """From when the first request was due until the last one ended: what rates are over."""
    drain_s: float
    """The part of it after the last request was due."""
    ttft: Durations | None
    tpot: Durations | None
    e2e: Durations | None
    output_tokens: int
    """Of failed requests, too."""
    tokens_per_answer: float
    """Output tokens of a request that succeeded, on average."""
    counted_by_server: int
    """Requests whose tokens the server counted; those of the others are events with text."""
    input_tokens: int | None
    """As the server counted them; None when it did not."""
    cached_tokens: int | None
    """Of these, in its cache; None when it does not say."""
    kept_slo: int | None
    """Requests that kept the objective; None when there is none."""
    peak_open: int
    """Requests under way at a time, at most; those of the warm-up count."""
    served_by: Mapping[str, int]

    @property
    def failed(self) -> int:
        """Requests that failed, in all ways."""
        return sum(self.errors.values())

    @property
    def answered_per_s(self) -> float:
        """Requests that succeeded, per second."""
        return self._rate(self.requests - self.failed)

    @property
    def output_tokens_per_s(self) -> float:
        """Tokens per second."""
        return self._rate(self.output_tokens)

    @property
    def goodput_per_s(self) -> float | None:
        """Requests that kept the objective, per second; None when there is no objective."""
        return None if self.kept_slo is None else self._rate(self.kept_slo)

    def _rate(self, count: int) -> float:
        return count / self.elapsed_s if self.elapsed_s > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorFigures:
    """How well the generator kept to its times, and what it took."""

    late: Durations | None
    """How long after it was due a request was sent."""
    late_max_s: float
    not_sent: int
    """Requests that were due with as many connections open as may be."""
    cpu: CpuUse
    core_wait_s: float | None
    """How long of `cpu.elapsed_s` it waited for a core that others had; None where that is not known."""

    @property
    def warnings(self) -> Sequence[str]:
        """What makes the run doubtful, in sentences."""
        found = []
        if self.late is not None and self.late.p99_s > LATE_P99_S:
            found.append(
                f"Arrivals were up to {self.late_max_s * 1000:,.0f} ms late ({self.late.p99_s * 1000:,.0f} ms at p99): "
                "the generator did not keep up. Lower --rate, or free this machine."
            )
        if self.cpu.cores > BUSY_CORES:
            found.append(
                f"The generator took {self.cpu.cores:.2f} cores of the one it can use: it may have seen tokens late. "
                "Lower --rate, or run several."
            )
        if self.not_sent:
            found.append(
                f"{self.not_sent:,} requests were not sent, as too many were under way: raise --max-open, or lower "
                "--rate."
            )
        return found


def figures_of(
    name: str,
    target: Target,
    results: Sequence[RequestResult],
    *,
    slo: Slo | None,
    warm_up: Sequence[RequestResult] = (),
) -> TargetFigures:
    """Return the figures of one target's results; of those of the `warm_up` only what they were beside the others."""
    succeeded = [result for result in results if result.error is None]
    failed = [result for result in results if result.error is not None]
    details = {error_kind(result): result.detail for result in reversed(failed)}
    prompts = [result.prompt_tokens for result in results if result.prompt_tokens is not None]
    cached = [result.cached_tokens for result in results if result.cached_tokens is not None]
    began = min((result.at_s for result in results), default=0.0)
    ended = max((result.at_s + result.e2e_s for result in results), default=0.0)
    served = Counter(result.served_by for result in results if result.served_by is not None)
    return TargetFigures(
        name=name,
        target=target,
        requests=len(results),
        errors=dict(Counter(error_kind(result) for result in failed).most_common()),
        error_details=details,
        elapsed_s=ended - began,
        drain_s=ended - max((result.at_s for result in results), default=0.0),
        ttft=durations_of([result.ttft_s for result in succeeded]),
        tpot=durations_of([result.tpot_s for result in succeeded]),
        e2e=durations_of([result.e2e_s for result in succeeded]),
        output_tokens=sum(result.output_tokens for result in results),
        tokens_per_answer=sum(result.output_tokens for result in succeeded) / max(1, len(succeeded)),
        counted_by_server=sum(result.counted for result in results),
        input_tokens=sum(prompts) if prompts else None,
        cached_tokens=sum(cached) if cached else None,
        kept_slo=None if slo is None else sum(slo.is_kept(result) for result in results),
        peak_open=max(concurrency([*warm_up, *results])[1], default=0),
        served_by=dict(sorted(served.items())),
    )


def generator_figures(
    results: Sequence[RequestResult], cpu: CpuUse, core_wait_s: float | None = None
) -> GeneratorFigures:
    """Return the generator's own figures, from the results of all targets."""
    late = [result.late_s for result in results]
    return GeneratorFigures(
        late=durations_of(late),
        late_max_s=max(late, default=0.0),
        not_sent=sum(result.error is ErrorKind.UNSENT for result in results),
        cpu=cpu,
        core_wait_s=core_wait_s,
    )


def durations_of(values: Sequence[float | None]) -> Durations | None:
    """Return what the known ones amount to; None when there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    p50, p90, p99 = np.percentile(known, (50, 90, 99)).tolist()
    return Durations(count=len(known), mean_s=float(np.mean(known)), p50_s=p50, p90_s=p90, p99_s=p99)


def concurrency(results: Sequence[RequestResult]) -> tuple[list[float], list[int]]:
    """Return the times at which the number of requests under way changed, and that number from each of them on."""
    changes = [
        change
        for result in results
        if result.error is not ErrorKind.UNSENT
        for change in ((result.at_s + result.late_s, 1), (result.at_s + max(result.late_s, result.e2e_s), -1))
    ]
    changes.sort()
    return [at for at, _ in changes], np.cumsum([step for _, step in changes], dtype=int).tolist()
