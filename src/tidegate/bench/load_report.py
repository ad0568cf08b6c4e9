"""What a load run found, for people: a table of latencies, one of counts, and sentences on what to make of them.

Bench: LoadFigures → **tables and sentences**.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from tidegate.bench.lengths import Lengths, TokenLengths
from tidegate.bench.load_compare import Added, AddedDurations
from tidegate.bench.load_figures import FEWEST_BEYOND, CpuUse, Durations, GeneratorFigures, TargetFigures
from tidegate.bench.load_plan import LoadPlan
from tidegate.bench.load_run import MEASURES, LoadFigures

TITLES = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "end to end"}
MAX_SERVERS = 16
"""Rows of who answered: a fingerprint may be another in every answer."""
MAX_DETAIL = 200
"""Characters of a server's error that are shown."""
DOUBTFUL = "?"
LONG_DRAIN = 0.1
"""Share of a run above which the time after the last request was due lowers the rates noticeably."""


def render_load(figures: LoadFigures) -> list[Table | Text]:
    """Return what is printed, in its order."""
    return [
        *(Text(line) for line in _headings(figures)),
        Text(),
        _latencies(figures),
        Text(),
        _counts(figures.targets),
        Text(),
        *(Text(line) for line in _remarks(figures)),
        *(Text(warning, style="yellow") for warning in _warnings(figures)),
    ]


def describe_plan(plan: LoadPlan) -> str:
    """Return the workload in a line."""
    kind = "Poisson" if plan.variation == 1 else f"Bursty (CV {plan.variation:g})"
    length = f"{plan.duration_s:g} s" if plan.requests is None else f"{plan.requests:,} requests"
    prefixes = ""
    if plan.shared_prefix_tokens:
        prefixes = f" behind {plan.prefixes} shared prefixes of {plan.shared_prefix_tokens}"
    return (
        f"{kind}, {plan.rate_per_s:g} requests/s, {length} after {plan.warm_up_s:g} s of warm-up; "
        f"input {describe_lengths(plan.input_tokens)} tokens{prefixes}, output {describe_lengths(plan.output_tokens)}; "
        f"seed {plan.seed}"
    )


def describe_lengths(lengths: Lengths) -> str:
    """Return a distribution as it is written on the command line."""
    if isinstance(lengths, TokenLengths):
        return f"lognormal:{lengths.median_tokens:g},{lengths.sigma:g}"
    if lengths.least_tokens == lengths.most_tokens:
        return str(lengths.least_tokens)
    return f"{lengths.least_tokens}..{lengths.most_tokens}"


def _headings(figures: LoadFigures) -> Iterator[str]:
    setup = figures.setup
    if setup.label:
        yield setup.label
    for target in setup.targets:
        yield f"{target.url}, model {_shown(target.model)}"
    yield describe_plan(setup.plan) + (", dealt to both" if len(setup.targets) == 2 else "")


def _latencies(figures: LoadFigures) -> Table:
    both = len(figures.targets) == 2
    table = _table("", *([""] if both else []), "mean", "p50", "p90", "p99", left=2 if both else 1)
    for measure in MEASURES:
        for place, target in enumerate(figures.targets):
            names = [TITLES[measure] if place == 0 else "", target.name] if both else [TITLES[measure]]
            table.add_row(*names, *_cells(getattr(target, measure)))
        if both:
            table.add_row("", "added", *_added_cells(figures.added[measure]), end_section=True)
    names = ["sent late", "by the generator"] if both else ["sent late"]
    table.add_row(*names, *_cells(figures.generator.late))
    return table


def _counts(targets: Sequence[TargetFigures]) -> Table:
    table = _table("", *(target.name for target in targets), left=1)
    table.add_row("requests", *(f"{target.requests:,}" for target in targets))
    table.add_row("failed", *(_failures(target) for target in targets))
    table.add_row("answered/s", *(f"{target.answered_per_s:,.2f}" for target in targets))
    if any(target.kept_slo is not None for target in targets):
        table.add_row("goodput, requests/s", *(_goodput(target) for target in targets))
    table.add_row("output tokens/s", *(f"{target.output_tokens_per_s:,.0f}" for target in targets))
    table.add_row(
        "output tokens",
        *(f"{target.output_tokens:,} ({target.tokens_per_answer:,.1f} each)" for target in targets),
    )
    if any(target.input_tokens is not None for target in targets):
        table.add_row("input tokens", *(_input(target) for target in targets))
    if any(target.cached_tokens is not None for target in targets):
        table.add_row("of them cached", *(_cached(target) for target in targets))
    table.add_row("under way at most", *(f"{target.peak_open:,}" for target in targets))
    for server, row in _served(targets):
        table.add_row(Text(server), *(f"{count:,}" for count in row))
    return table


def _served(targets: Sequence[TargetFigures]) -> Iterator[tuple[str, list[int]]]:
    """Yield a row for each server that answered, the busiest ones; the others in one."""
    total: Counter[str] = Counter()
    for target in targets:
        total.update(target.served_by)
    named = sorted(server for server, _ in total.most_common(MAX_SERVERS))
    for server in named:
        yield f"served by {_shown(server)}", [target.served_by.get(server, 0) for target in targets]
    if len(total) > MAX_SERVERS:
        rest = [sum(target.served_by.values()) - sum(target.served_by.get(s, 0) for s in named) for target in targets]
        yield f"by {len(total) - MAX_SERVERS:,} others", rest


def _remarks(figures: LoadFigures) -> Iterator[str]:
    durations = [getattr(target, measure) for target in figures.targets for measure in MEASURES]
    if any(_doubts(known) for known in durations if known is not None):
        yield f"{DOUBTFUL} fewer than {FEWEST_BEYOND} requests lie beyond it: doubtful."
    if figures.setup.slo is not None:
        yield f"Goodput: requests that kept {figures.setup.slo}."
    yield from _token_sources(figures.targets)
    yield from _drains(figures.targets)
    for target in figures.targets:
        for kind, detail in target.error_details.items():
            yield f"{target.name}, {kind}: {_shown(detail.removeprefix(f'{kind}: '))}"
    if len(figures.targets) == 2:
        yield from _comparison(figures)
    if figures.server_cpu is not None:
        first = figures.targets[0].name
        yield f"Process {figures.setup.cpu_of} took {_cpu(figures.server_cpu)} streamed through {first}."
    yield _generator(figures.generator)


def _warnings(figures: LoadFigures) -> Iterator[str]:
    ended = sum(target.requests for target in figures.targets)
    if ended < figures.planned:
        yield (
            f"Stopped early: {ended:,} of {figures.planned:,} requests had ended, {figures.cut_off:,} were under way. "
            "Those that take long are missing."
        )
    if figures.setup.cpu_of is not None and figures.server_cpu is None:
        yield f"Process {figures.setup.cpu_of} ended during the run: its CPU time is not known."
    yield from figures.generator.warnings


def _comparison(figures: LoadFigures) -> Iterator[str]:
    ours, theirs = figures.targets
    known = {measure: added for measure, added in figures.added.items() if added is not None}
    if not known:
        yield "No comparison: no pair of requests was answered by both."
        return
    pairs = max(added.pairs for added in known.values())
    yield f"What {ours.name} adds to {theirs.name}, and its 95 % interval over {pairs:,} pairs of requests:"
    for measure, added in known.items():
        yield f"  {TITLES[measure]}: {_with_interval(added.p50)} at p50, {_with_interval(added.mean)} on average"


def _with_interval(added: Added) -> str:
    doubt = "" if added.is_certain else ", perhaps nothing"
    return f"{_signed(added.seconds)} ({_signed(added.low_s)} to {_signed(added.high_s)}{doubt})"


def _token_sources(targets: Sequence[TargetFigures]) -> Iterator[str]:
    for target in targets:
        guessed = target.requests - target.failed - target.counted_by_server
        if guessed > 0:
            yield f"{target.name} did not count the tokens of {guessed:,} answers: an event with text counts as one."


def _drains(targets: Sequence[TargetFigures]) -> Iterator[str]:
    for target in targets:
        if target.drain_s > LONG_DRAIN * target.elapsed_s:
            yield (
                f"{target.name} ended {target.drain_s:.1f} s after the last request was due. That is in its rates: "
                "a longer run shows higher ones."
            )


def _cpu(use: CpuUse) -> str:
    share = "no token" if use.per_token_s is None else f"{use.per_token_s * 1e6:,.1f} µs of CPU per token"
    return f"{use.cores:.2f} cores, {share}"


def _generator(generator: GeneratorFigures) -> str:
    waited = ""
    if generator.core_wait_s is not None:
        waited = f"; it waited for a core {generator.core_wait_s:.1f} s of {generator.cpu.elapsed_s:.1f} s"
    return f"The generator took {_cpu(generator.cpu)}{waited}."


def _cells(durations: Durations | None) -> list[str]:
    if durations is None:
        return ["-"] * 4
    values = [durations.p50_s, durations.p90_s, durations.p99_s]
    marks = [DOUBTFUL if durations.is_doubtful(percent) else "" for percent in (50, 90, 99)]
    percentiles = [f"{mark}{_duration(value)}" for mark, value in zip(marks, values, strict=True)]
    return [_duration(durations.mean_s), *percentiles]


def _doubts(durations: Durations) -> bool:
    return durations.is_doubtful(99)  # the first of them to be


def _added_cells(added: AddedDurations | None) -> list[str]:
    if added is None:
        return ["-"] * 4
    return [_signed(one.seconds) for one in (added.mean, added.p50, added.p90, added.p99)]


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:,.{_digits(seconds)}f} ms"


def _signed(seconds: float) -> str:
    return f"{seconds * 1000:+,.{_digits(seconds)}f} ms"


def _digits(seconds: float) -> int:
    """Return how many digits after the point of milliseconds are worth showing."""
    return 0 if abs(seconds) >= 0.1 else 1 if abs(seconds) >= 0.01 else 2 if abs(seconds) >= 0.001 else 3


def _failures(target: TargetFigures) -> str:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in target.errors.items())
    return f"{target.failed:,} ({kinds})" if kinds else "0"


def _goodput(target: TargetFigures) -> str:
    if target.goodput_per_s is None or target.kept_slo is None:
        return "-"
    return f"{target.goodput_per_s:,.2f} ({target.kept_slo / max(1, target.requests):.1%} kept it)"


def _input(target: TargetFigures) -> str:
    if target.input_tokens is None:
        return "-"
    return f"{target.input_tokens:,} ({target.input_tokens / max(1, target.counted_by_server):,.1f} each)"


def _cached(target: TargetFigures) -> str:
    if target.cached_tokens is None or not target.input_tokens:
        return "-"
    return f"{target.cached_tokens:,} ({target.cached_tokens / target.input_tokens:.0%})"


def _shown(detail: str) -> str:
    """Return what a server said in one line, without what would act on a terminal."""
    words = " ".join(detail.split())
    printable = "".join(character if character.isprintable() else "?" for character in words)
    return printable if len(printable) <= MAX_DETAIL else f"{printable[:MAX_DETAIL]} …"


def _table(*columns: str, left: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if place < left else "right", overflow="fold")
    return table
