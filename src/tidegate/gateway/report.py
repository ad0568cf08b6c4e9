"""The state of a picker as people and Prometheus read it."""

from collections.abc import Iterator, Sequence
from math import inf

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from tidegate.pool.outcomes import Outcomes
from tidegate.pool.row import Row
from tidegate.pool.table import Pool


class EndpointReport(msgspec.Struct, frozen=True):
    """One endpoint of `/debug/pool`. null: it did not say."""

    name: str
    address: str
    state: str
    """ready, stale, unknown (never reported), ejected or unreachable."""
    queued_requests: int | None
    """As last reported."""
    running_requests: int | None
    """As last reported."""
    kv_utilization: float | None
    """As last reported; ratio."""
    in_flight: int
    """Requests sent there that have not ended."""
    picks: int
    """Requests sent there since the picker started."""
    served: int
    """Requests it was the last to serve."""
    age_s: float | None
    """Age of the last report; seconds."""
    error: str
    """Why the last scrape failed; empty when it did not."""


class PoolReport(msgspec.Struct, frozen=True):
    """The body of `/debug/pool`."""

    endpoints: list[EndpointReport]
    outcomes: dict[str, int]
    """Requests that ended, by result."""
    unpicked: int
    """Requests that Envoy placed without this picker."""
    problems: Sequence[str]
    """What keeps endpoints out of the pool, in words."""


def report_pool(pool: Pool, outcomes: Outcomes, now: float, *, problems: Sequence[str] = ()) -> PoolReport:
    """Return the pool and the outcomes as they are now; `problems` are those of discovery."""
    served: dict[str, int] = {}
    results: dict[str, int] = {}
    for (name, result), count in outcomes.counts.items():
        served[name] = served.get(name, 0) + count
        results[result] = results.get(result, 0) + count
    return PoolReport(
        endpoints=[_report_row(pool, row, served.get(row.endpoint.name, 0), now) for row in pool.rows],
        outcomes=results,
        unpicked=outcomes.unpicked,
        problems=problems,
    )


def _report_row(pool: Pool, row: Row, served: int, now: float) -> EndpointReport:
    signals = row.signals
    return EndpointReport(
        name=row.endpoint.name,
        address=row.endpoint.address,
        state=pool.state(row, now),
        queued_requests=signals.queued_requests if signals else None,
        running_requests=signals.running_requests if signals else None,
        kv_utilization=signals.kv_utilization if signals else None,
        in_flight=row.in_flight,
        picks=row.picks,
        served=served,
        age_s=round(now - signals.observed_at, 3) if signals else None,
        error=row.error,
    )


def render_metrics(pool: Pool, outcomes: Outcomes, now: float) -> Iterator[Metric]:
    """Yield the picker's metric families. Labels are endpoint names and our own words."""
    reports = report_pool(pool, outcomes, now).endpoints
    yield from _outcomes(outcomes)
    picks = CounterMetricFamily("tidegate_picks", "Requests sent to the endpoint.", labels=["endpoint"])
    for report in reports:
        picks.add_metric([report.name], report.picks)
    yield picks
    yield from _gauges(reports)


def _outcomes(outcomes: Outcomes) -> Iterator[Metric]:
    ended = CounterMetricFamily(
        "tidegate_outcomes",
        "Requests that ended, by the endpoint that served them last.",
        labels=["endpoint", "result"],
    )
    for (name, result), count in sorted(outcomes.counts.items()):
        ended.add_metric([name, result], count)
    yield ended
    yield CounterMetricFamily("tidegate_retries", "Attempts after the first, of all requests.", value=outcomes.retries)
    yield CounterMetricFamily(
        "tidegate_unpicked_requests", "Requests that Envoy placed without this picker.", value=outcomes.unpicked
    )
    ttft = HistogramMetricFamily(
        "tidegate_ttft_seconds", "Of streams: from a request's last byte to the answer's first.", labels=["endpoint"]
    )
    for name, histogram in sorted(outcomes.ttft.items()):
        buckets = [("+Inf" if bound == inf else repr(bound), float(n)) for bound, n in histogram.cumulative()]
        ttft.add_metric([name], buckets, histogram.sum)
    yield ttft
    tokens = CounterMetricFamily("tidegate_tokens", "Tokens that servers say they used.", labels=["endpoint", "type"])
    for (name, kind), count in sorted(outcomes.tokens.items()):
        tokens.add_metric([name, kind], count)
    yield tokens


def _gauges(reports: Sequence[EndpointReport]) -> Iterator[Metric]:
    columns: list[tuple[str, str, list[float | None]]] = [
        ("ready", "1 when it reports and can be picked.", [float(r.state == "ready") for r in reports]),
        ("queued_requests", "Requests waiting there, as last reported.", [r.queued_requests for r in reports]),
        ("running_requests", "Requests running there, as last reported.", [r.running_requests for r in reports]),
        ("kv_utilization", "Used / total KV-cache blocks, as last reported.", [r.kv_utilization for r in reports]),
        ("in_flight_requests", "Requests sent there that have not ended.", [r.in_flight for r in reports]),
        ("report_age_seconds", "Age of the last report.", [r.age_s for r in reports]),
    ]
    for name, help_text, values in columns:
        family = GaugeMetricFamily(f"tidegate_endpoint_{name}", help_text, labels=["endpoint"])
        for report, value in zip(reports, values, strict=True):
            if value is not None:
                family.add_metric([report.name], value)
        yield family
