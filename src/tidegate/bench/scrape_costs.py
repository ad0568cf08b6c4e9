"""What a parse and a scrape cost, beside what they cost with prometheus_client's parser.

Bench: expositions → **both ways, in turn** → Comparison → report. CPU time of this process, not elapsed time: servers
and neighbours on the same machine do not count.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

import aiohttp
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from tidegate.bench.scrape_expositions import Exposition
from tidegate.protocol.errors import TidegateError
from tidegate.protocol.exposition import Sample, scan
from tidegate.protocol.load import parse_signals
from tidegate.scrape.http import HttpUrl
from tidegate.scrape.probe import ExpositionSource

TIMEOUT_S = 5.0

Work = Callable[[], Awaitable[object]]
"""One parse, or one scrape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The middle half of some figures."""

    median: float
    low: float
    """First quartile."""
    high: float
    """Third quartile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One exposition, both ways."""

    exposition: str
    body_bytes: int
    tidegate_cpu_s: Spread
    """CPU of one parse or scrape, over the rounds; seconds."""
    prometheus_client_cpu_s: Spread
    ratio: Spread
    """prometheus_client / tidegate, both of the same round; above 1 where tidegate takes less."""


def spread(figures: Sequence[float]) -> Spread:
    """Return the quartiles of at least one figure."""
    low, median, high = np.percentile(figures, (25, 50, 75)).tolist()
    return Spread(median=median, low=low, high=high)


def read_with_prometheus_client(exposition: bytes, families: Collection[str]) -> list[Sample]:
    """Return the samples of some families, as `scan` does, by prometheus_client's parser."""
    parsed = text_string_to_metric_families(exposition.decode())
    return [
        Sample(sample.name, sample.labels, sample.value)
        for family in parsed
        for sample in family.samples
        if sample.name in families
    ]


async def compare_parsers(exposition: Exposition, *, rounds: int, batch_s: float) -> Comparison:
    """Compare parse_signals with prometheus_client's parser and the search for the families needed.

    What comes after, from samples to signals, counts for tidegate only. `batch_s`: about how long each way is measured
    in each round. Raises TidegateError when the two read different samples.
    """
    body, engine = exposition.body, exposition.engine

    async def ours() -> object:
        return parse_signals(body, engine, observed_at=0.0)

    async def theirs() -> object:
        return read_with_prometheus_client(body, engine.families)

    ours_read, theirs_read = scan(body, engine.families), read_with_prometheus_client(body, engine.families)
    if sorted(map(_identity, ours_read)) != sorted(map(_identity, theirs_read)):
        raise TidegateError(f"{exposition.title}: tidegate and prometheus_client read different samples")
    return await _compare(exposition, ours, theirs, rounds=rounds, batch_s=batch_s)


async def compare_scrapes(exposition: Exposition, url: HttpUrl, *, rounds: int, batch_s: float) -> Comparison:
    """Compare a whole scrape, GET and parse over a kept connection, with aiohttp and prometheus_client's parser."""
    families = exposition.engine.families
    source = ExpositionSource([url], timeout_s=TIMEOUT_S, clock=time.monotonic)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def theirs() -> object:
            async with session.get(str(url), headers={"Accept-Encoding": "identity"}) as response:
                return read_with_prometheus_client(await response.read(), families)

        try:
            return await _compare(exposition, source.read, theirs, rounds=rounds, batch_s=batch_s)
        finally:
            source.close()


async def _compare(exposition: Exposition, ours: Work, theirs: Work, *, rounds: int, batch_s: float) -> Comparison:
    """Measure both in each round, in an order that changes, so that both meet the same neighbours."""
    ours_calls, theirs_calls = await _calls(ours, batch_s), await _calls(theirs, batch_s)
    of_ours, of_theirs = [], []
    for number in range(rounds):
        if number % 2:
            of_theirs.append(await _cpu_s(theirs, theirs_calls))
            of_ours.append(await _cpu_s(ours, ours_calls))
        else:
            of_ours.append(await _cpu_s(ours, ours_calls))
            of_theirs.append(await _cpu_s(theirs, theirs_calls))
    return Comparison(
        exposition=exposition.title,
        body_bytes=len(exposition.body),
        tidegate_cpu_s=spread(of_ours),
        prometheus_client_cpu_s=spread(of_theirs),
        ratio=spread([theirs_s / ours_s for ours_s, theirs_s in zip(of_ours, of_theirs, strict=True)]),
    )


async def _calls(work: Work, batch_s: float) -> int:
    """Return how many calls take about `batch_s`; the first, which connects and compiles, is not counted."""
    await work()
    return max(1, round(batch_s / await _cpu_s(work, 3)))


async def _cpu_s(work: Work, calls: int) -> float:
    """Return the CPU time of one call; seconds."""
    await asyncio.sleep(0)  # a parse never waits: lets a Ctrl-C through
    start = time.process_time()
    for _ in range(calls):
        await work()
    return (time.process_time() - start) / calls


def _identity(sample: Sample) -> tuple[str, list[tuple[str, str]], float]:
    return sample.family, sorted(sample.labels.items()), sample.value
