"""Rules on how an exposition comes: content type, time, size, and what a filter by name does."""

from collections.abc import Iterator
from dataclasses import dataclass

from tidegate.protocol.conformance.evidence import OPENMETRICS_TYPE, Answer
from tidegate.protocol.conformance.finding import Finding, Level, Rule
from tidegate.protocol.conformance.strict import StrictReading, read_strictly

CONTENT_TYPE = Rule("content-type-wrong", Level.WARNING, "The Content-Type is none of an exposition.")
SLOW = Rule("scrape-slow", Level.WARNING, "A scrape takes longer than 100 ms.")
LARGE = Rule("exposition-large", Level.WARNING, "The exposition is larger than 1 MB.")
NAME_FILTER = Rule("name-filter", Level.INFO, "Tells whether GET /metrics?name[]=… gives only the families named.")
DRAINS = Rule(
    "metrics-drain", Level.WARNING, "Beside the exposition, /metrics gives JSON that each reader takes from the others."
)
RULES = (CONTENT_TYPE, SLOW, LARGE, NAME_FILTER, DRAINS)

SLOW_S = 0.1
LARGE_BYTES = 1_000_000

_VERSIONS = {"text/plain": ("", "0.0.4", "1.0.0"), OPENMETRICS_TYPE: ("", "0.0.1", "1.0.0")}
_TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterProbe:
    """What a GET with ``name[]`` gave."""

    family: str
    """The one that was named."""
    status: int
    body: bytes


def judge(answer: Answer) -> Iterator[Finding]:
    """Yield what is wrong with the answer itself."""
    problem = _content_type_problem(answer.content_type)
    if problem:
        yield CONTENT_TYPE.finding(problem, f"Answer with `Content-Type: {_TEXT_TYPE}`; Prometheus 3 insists on it.")
    if answer.took_s > SLOW_S:
        yield SLOW.finding(
            f"the scrape took {answer.took_s * 1000:.0f} ms, more than {SLOW_S * 1000:.0f} ms",
            "Scrape it less often, or publish fewer series: what is read late is late by as much.",
        )
    if len(answer.body) > LARGE_BYTES:
        yield LARGE.finding(
            f"the exposition has {len(answer.body):,} bytes, more than {LARGE_BYTES:,}",
            "Publish fewer series: each scrape costs the server time that its requests lack.",
        )


def judge_filter(probe: FilterProbe, whole: StrictReading) -> Finding:
    """Return what a filter by name does. `whole`: the exposition without it."""
    if probe.status != 200:
        return NAME_FILTER.finding(f"name[]={probe.family} is answered with status {probe.status}")
    filtered = read_strictly(probe.body)
    if not filtered.is_exposition and whole.is_exposition:
        return NAME_FILTER.finding(f"name[]={probe.family} gives nothing")
    if any(filtered.family(sample.family) != probe.family for sample in filtered.samples):
        return NAME_FILTER.finding("name[] is ignored: other families come along")
    if len(filtered.samples) == len(whole.samples):
        return NAME_FILTER.finding("whether name[] is honoured cannot be told: there is no other family")
    return NAME_FILTER.finding(f"name[] is honoured: {len(filtered.samples)} of {len(whole.samples)} samples come")


def judge_beside(statistics_path: str, exposition_url: str) -> Finding:
    """Return what to know of a server with iteration statistics in JSON beside its exposition."""
    return DRAINS.finding(
        f"{statistics_path} of this engine is a JSON array that is emptied by reading it; checked was {exposition_url}",
        f"Let scrapers read {exposition_url}.",
    )


def _content_type_problem(content_type: str) -> str:
    kind, *parameters = [part.strip() for part in content_type.split(";")]
    if not kind:
        return "no Content-Type"
    if kind not in _VERSIONS:
        return f"the Content-Type is {content_type[:80]!r}"
    given = dict(part.partition("=")[::2] for part in parameters)
    version = given.get("version", "").strip('"')
    if version not in _VERSIONS[kind]:
        return f"the Content-Type has version {version[:20]!r}"
    charset = given.get("charset", "utf-8").strip('"')
    return "" if charset == "utf-8" else f"the Content-Type has charset {charset[:20]!r}"
