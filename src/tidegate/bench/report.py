"""What the runs of a workload amount to: a table, and a sentence that says which was better.

Bench: workload → client → results → **report**.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table
from rich.text import Text

from tidegate.bench.results import ErrorKind, RequestResult

NOISE = 0.05
"""Two figures closer than this share of the larger one are a tie: runs repeat no better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Of durations, in seconds.

    Between two observations interpolated linearly: NumPy's default, type 7 of Hyndman and Fan.
    """

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run of a workload. Latencies are those of the requests that succeeded: read them together with `errors`."""

    name: str
    """What was measured, as the table and the verdict call it."""
    requests: int
    errors: Mapping[str, int]
    """Kind of failure → requests, most frequent first; a bad status is a kind of its own, such as "status 503"."""
    ttft: Percentiles | None
    """Time to first token; None when no request had one."""
    tpot: Percentiles | None
    """Time per output token after the first."""
    e2e: Percentiles | None
    output_tokens_per_s: float
    """Output tokens, of failed requests too, from when the first request was due until the last one ended."""
    requests_per_endpoint: Mapping[str, int]
    """Requests by who served them, sorted by name; those nobody answered are missing."""
    late_p99_s: float
    """How late the client sent: far below the latencies, or it was itself the bottleneck. Seconds."""

    @property
    def failed(self) -> int:
        """Requests that failed, of all kinds."""
        return sum(self.errors.values())


def summarize(name: str, results: Sequence[RequestResult]) -> RunSummary:
    """Return the summary of one run called `name`."""
    succeeded = [result for result in results if result.error is None]
    errors = Counter(error_kind(result) for result in results if result.error is not None)
    served = Counter(result.served_by for result in results if result.served_by is not None)
    began = min((result.at_s for result in results), default=0.0)
    ended = max((result.at_s + result.e2e_s for result in results), default=0.0)
    tokens = sum(result.output_tokens for result in results)
    late = _percentiles([result.late_s for result in results])
    return RunSummary(
        name=name,
        requests=len(results),
        errors=dict(errors.most_common()),
        ttft=_percentiles([result.ttft_s for result in succeeded]),
        tpot=_percentiles([result.tpot_s for result in succeeded]),
        e2e=_percentiles([result.e2e_s for result in succeeded]),
        output_tokens_per_s=tokens / (ended - began) if ended > began else 0.0,
        requests_per_endpoint=dict(sorted(served.items())),
        late_p99_s=late.p99 if late is not None else 0.0,
    )


def render_comparison(runs: Sequence[RunSummary], *, title: str = "") -> Table:
    """Return a table with a column for each of `runs` and a row for each figure."""
    # Text: in a str, the [fd00::1] of a name would be markup, and its :1234: a picture.
    table = Table(title=Text(title, style="table.title") if title else None, title_justify="left")
    table.add_column("")
    for run in runs:
        table.add_column(Text(run.name), justify="right")
    table.add_row("requests", *(str(run.requests) for run in runs))
    table.add_row("errors", *(_errors(run) for run in runs))
    for label, figure in (("TTFT", "ttft"), ("TPOT", "tpot"), ("end to end", "e2e")):
        table.add_section()
        for p in ("p50", "p90", "p99"):
            table.add_row(f"{label} {p}", *(_duration(getattr(getattr(run, figure), p, None)) for run in runs))
    table.add_section()
    table.add_row("output tokens/s", *(f"{run.output_tokens_per_s:,.0f}" for run in runs))
    table.add_row("sent late, p99", *(_duration(run.late_p99_s) for run in runs))
    table.add_section()
    for endpoint in sorted({endpoint for run in runs for endpoint in run.requests_per_endpoint}):
        table.add_row(Text(f"served by {endpoint}"), *(str(run.requests_per_endpoint.get(endpoint, 0)) for run in runs))
    return table


def verdict(baseline: RunSummary, candidate: RunSummary) -> str:
    """Say in one sentence whether `candidate` did better than `baseline`: TTFT, TPOT and failures all count."""
    if baseline.ttft is None or candidate.ttft is None:
        silent = baseline if baseline.ttft is None else candidate
        return f"No verdict: none of {silent.name}'s {silent.requests} requests was answered."
    ttft, ttft_outcomes = _compare("TTFT", baseline.ttft, candidate.ttft)
    tpot, tpot_outcomes = _compare("TPOT", baseline.tpot, candidate.tpot)
    outcomes = {_sign(baseline.failed - candidate.failed)} | ttft_outcomes | tpot_outcomes
    return (
        f"{candidate.name} {_lead(outcomes)} {baseline.name}: {ttft}; {tpot}; "
        f"{candidate.failed} of {candidate.requests} requests failed, against {baseline.failed} of {baseline.requests}."
    )


def _compare(label: str, baseline: Percentiles | None, candidate: Percentiles | None) -> tuple[str, set[int]]:
    """Return the comparison in words, and the signs in it: 1 where the candidate was faster, -1 where slower, or 0."""
    if baseline is None or candidate is None:
        return f"{label} not known", set()
    words, outcomes = [], set()
    for p in ("p50", "p90", "p99"):
        before, after = getattr(baseline, p), getattr(candidate, p)
        outcome = 0 if abs(before - after) <= NOISE * max(before, after) else _sign(before - after)
        outcomes.add(outcome)
        words.append(f"{p} {_change(outcome, before, after)}")
    return f"{label} {', '.join(words)}", outcomes


def _lead(outcomes: set[int]) -> str:
    if outcomes >= {-1, 1}:
        return "is in part better, in part worse than"
    if 1 in outcomes:
        return "is better than"
    return "is worse than" if -1 in outcomes else "ties with"


def _change(outcome: int, before: float, after: float) -> str:
    if outcome == 0:
        return "a tie"
    slow, fast = max(before, after), min(before, after)
    return f"{slow / max(fast, 1e-6):.2f}x {'faster' if outcome > 0 else 'slower'}"


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)


def error_kind(result: RequestResult) -> str:
    return f"status {result.status}" if result.error is ErrorKind.STATUS else str(result.error)


def _percentiles(durations: Sequence[float | None]) -> Percentiles | None:
    known = [duration for duration in durations if duration is not None]
    if not known:
        return None
    p50, p90, p99 = np.percentile(known, (50, 90, 99)).tolist()
    return Percentiles(p50=p50, p90=p90, p99=p99)


def _errors(run: RunSummary) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in run.errors.items())
    return f"{run.failed} ({kinds})" if kinds else "0"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    # One unit throughout: figures of a row are compared at a glance.
    return f"{seconds * 1000:,.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
