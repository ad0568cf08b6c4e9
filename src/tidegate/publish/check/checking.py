"""`check`: fetches what a server publishes, and lets the rules of `protocol.conformance` judge it.

Flow: URL → fetching.Fetcher → Evidence → rules → ServerReport. Asking for tokens (asking) and watching come after
that, where they are wanted.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.protocol.conformance import api, orca, reach, transport, watching
from tidegate.protocol.conformance.consistency import TORN_BY_CHANCE
from tidegate.protocol.conformance.evidence import Evidence, gather
from tidegate.protocol.conformance.finding import Finding
from tidegate.protocol.conformance.verdict import in_order, judge_evidence
from tidegate.protocol.engines import ENGINES, EngineMapping
from tidegate.protocol.errors import ConfigError, ScrapeError
from tidegate.protocol.signals import LoadSignals
from tidegate.publish.check.asking import Client, open_session
from tidegate.publish.check.fetching import Fetcher, Place, StatisticsFoundError, open_fetcher
from tidegate.publish.check.report import ServerReport, not_checked
from tidegate.scrape.http import HttpUrl, parse_url
from tidegate.scrape.probe import PATH_BESIDE_JSON

SERVERS_AT_A_TIME = 16
WATCH_INTERVAL_S = 0.5
"""Between two looks: many a server renews its gauges no more often."""
CONFIRMED_AFTER_S = 0.05
"""After what a finding of chance should have gone: longer than an iteration of most servers takes."""

_OF_CHANCE = TORN_BY_CHANCE | {transport.SLOW.id}
"""Rules whose findings count only if a second look says them again."""
_DRAINS = ENGINES["trtllm-serve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What to check, besides the exposition."""

    engine: EngineMapping | None = None
    """None: detect it."""
    timeout_s: float = 5.0
    """Limit on each GET."""
    api: bool = False
    orca: bool = False
    watch_s: float = 0.0
    """How long to observe; 0: not at all."""


METRICS = ",metrics="
"""What stands between a server's URL and that of its metrics, where the two have little in common."""


@dataclass(frozen=True, slots=True)
class _Target:
    """One server to check."""

    text: str
    """As the user wrote it."""
    serving: HttpUrl
    """Where it takes requests."""
    metrics: HttpUrl
    """Where its exposition is, or its base URL, near which it is."""
    alone: bool
    """Whether no other server of its host is checked."""


async def check_servers(urls: Sequence[str], options: CheckOptions) -> list[ServerReport]:
    """Return a report on each server, in the order given. Asks several at a time.

    A URL may be followed by that of the metrics: ``URL,metrics=URL``.

    Raises:
        ConfigError: a URL is malformed.
    """
    targets = _parse_targets(urls)
    turns, quiet = asyncio.Semaphore(SERVERS_AT_A_TIME), asyncio.Lock()

    async def in_turn(target: _Target) -> ServerReport:
        async with turns:
            return await _check(target, options, quiet)

    async with asyncio.TaskGroup() as tasks:
        checks = [tasks.create_task(in_turn(target), name=f"check {target.text}") for target in targets]
    return [check.result() for check in checks]


def _parse_targets(texts: Sequence[str]) -> list[_Target]:
    urls = []
    for text in texts:
        serving, named, metrics = text.partition(METRICS)
        if named and not metrics:
            raise ConfigError(f"{text!r} names no URL after metrics=", fix="Write URL,metrics=URL.")
        url = parse_url(serving)
        urls.append((text, url, parse_url(metrics) if metrics else url))
    at_host = Counter(serving.host for _, serving, _ in urls)
    return [_Target(text, serving, metrics, at_host[serving.host] == 1) for text, serving, metrics in urls]


async def _check(target: _Target, options: CheckOptions, quiet: asyncio.Lock) -> ServerReport:
    with open_fetcher(options.timeout_s, quiet) as fetcher:
        try:
            place = await fetcher.find(target.metrics, options.engine, alone=target.alone)
            engine = place.engine or options.engine
            if engine is None:
                return _of_no_engine(target.text, place)
            return await _check_place(target, place.url, engine, fetcher, options)
        except StatisticsFoundError as error:
            return not_checked(target.text, reach.statistics_instead(error.url))
        except ScrapeError as error:
            return not_checked(target.text, reach.judge(error))


def _of_no_engine(text: str, place: Place) -> ServerReport:
    return ServerReport(
        url=text,
        metrics_url=str(place.url),
        signals=LoadSignals(observed_at=0.0),
        sources={},
        findings=(reach.engine_unknown(str(place.url)),),
        checked=True,
    )


async def _check_place(
    target: _Target, url: HttpUrl, engine: EngineMapping, fetcher: Fetcher, options: CheckOptions
) -> ServerReport:
    answer = await fetcher.get(url)
    async with fetcher.quiet:
        evidence = gather(answer, engine)
        verdict = judge_evidence(evidence)
    findings = await _confirmed(verdict.findings, fetcher, url, engine)
    findings.extend(await _filter(fetcher, url, evidence))
    findings.extend(reach.judge_place(given=target.metrics.authority, found=url.authority, port=target.metrics.port))
    if engine is _DRAINS and url.path == PATH_BESIDE_JSON:
        findings.append(transport.judge_beside(f"http://{url.authority}/metrics", str(url)))
    movements: Sequence[watching.Movement] = ()
    if options.watch_s:  # before anything is asked of the server, which would change what there is to see
        movements, told = await _watch(fetcher, url, engine, options.watch_s)
        findings.extend(told)
    if options.api or options.orca:
        findings.extend(await _ask(f"http://{target.serving.authority}", evidence, options))
    return ServerReport(
        url=target.text,
        metrics_url=str(url),
        engine=engine.name,
        signals=verdict.signals,
        sources=verdict.sources,
        findings=in_order(findings),
        checked=True,
        movements=tuple(movements),
    )


async def _confirmed(
    findings: Sequence[Finding], fetcher: Fetcher, url: HttpUrl, engine: EngineMapping
) -> list[Finding]:
    """Drop the findings that chance may have made, unless another look makes them, too.

    Reading the expositions of other servers is such a chance: it would count as time that this one took.
    """
    if not any(finding.rule in _OF_CHANCE for finding in findings):
        return list(findings)
    await asyncio.sleep(CONFIRMED_AFTER_S)
    async with fetcher.quiet:
        again = {finding.rule for finding in judge_evidence(gather(await fetcher.get(url), engine)).findings}
    return [finding for finding in findings if finding.rule in again or finding.rule not in _OF_CHANCE]


async def _filter(fetcher: Fetcher, url: HttpUrl, evidence: Evidence) -> list[Finding]:
    wanted = (sample.family for sample in evidence.reading.samples if sample.family in evidence.engine.families)
    family = next(wanted, None)
    if family is None:
        return []
    try:
        probe = await fetcher.get_filtered(url, family)
    except ScrapeError as error:
        return [transport.NAME_FILTER.finding(f"name[]={family} is not answered: {error}")]
    async with fetcher.quiet:
        return [transport.judge_filter(probe, evidence.reading)]


async def _ask(base_url: str, evidence: Evidence, options: CheckOptions) -> list[Finding]:
    engine = evidence.engine
    findings: list[Finding] = []
    async with open_session() as session:
        client = Client(session, base_url)
        model = await client.model(otherwise=_model_in(evidence))
        if options.api:
            findings += map(api.judge, await client.ask_api(model))
        if options.orca:
            answers = await client.ask_orca(model, triton=engine.name.startswith("triton"))
            findings += map(orca.judge, answers)
    return findings


def _model_in(evidence: Evidence) -> str:
    """Return the name of a model that the exposition labels its signals with; empty: it names none."""
    label = evidence.engine.model_labels[0]
    signals = (sample for sample in evidence.reading.samples if sample.family in evidence.engine.families)
    return next((sample.labels[label] for sample in signals if label in sample.labels), "")


async def _watch(
    fetcher: Fetcher, url: HttpUrl, engine: EngineMapping, watch_s: float
) -> tuple[Sequence[watching.Movement], list[Finding]]:
    """Look again and again; a scrape that fails is counted, for a server may restart meanwhile."""
    clock = asyncio.get_running_loop().time
    ends_at = clock() + watch_s
    looks: list[watching.Observation] = []
    failed = 0
    while True:
        try:
            answer = await fetcher.get(url)
            async with fetcher.quiet:
                looks.append(watching.observe(gather(answer, engine)))
        except ScrapeError:
            failed += 1
        left_s = ends_at - clock()
        if left_s <= 0:
            break
        await asyncio.sleep(min(WATCH_INTERVAL_S, left_s))
    return watching.movements(looks), list(watching.judge(looks, failed=failed, watched_s=watch_s))
