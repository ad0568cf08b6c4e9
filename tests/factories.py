"""Short ways to build what tests need; whatever a test does not name is left at something harmless."""

from collections.abc import Sequence
from typing import Any

from tidegate.picker.request import InferenceRequest
from tidegate.pool.endpoint import Endpoint
from tidegate.pool.table import Pool, PoolView
from tidegate.protocol.signals import LoadSignals

NOW = 1000.0
"""When the endpoints of `pool_of` report; seconds, far from 0 so that a forgotten `now` shows."""
STALE_AFTER_S = 5.0

Figures = Sequence[float | None]


def endpoint(number: int = 0, **fields: Any) -> Endpoint:
    """Return endpoint `e<number>` at `10.x.y.z:8000`."""
    host = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    given = {"name": f"e{number}", "host": host, "port": 8000, "address": f"{host}:8000"} | fields
    return Endpoint(**given)


def endpoints(count: int) -> list[Endpoint]:
    """Return endpoints `e0`, `e1` …"""
    return [endpoint(number) for number in range(count)]


def signals(queued: Any = None, running: Any = None, kv: Any = None, at: float = NOW, **fields: Any) -> LoadSignals:
    """Return one scrape's answer."""
    return LoadSignals(queued_requests=queued, running_requests=running, kv_utilization=kv, observed_at=at, **fields)


def pool_of(queued: Figures = (), running: Figures = (), kv: Figures = (), *, at: float = NOW, **fields: Any) -> Pool:
    """Return a pool that was scraped once: one figure per endpoint, None where it did not say.

    A column left out is None everywhere; an endpoint that says nothing at all has never reported.
    """
    count = max(len(queued), len(running), len(kv))
    columns = [list(column) or [None] * count for column in (queued, running, kv)]
    pool = Pool(stale_after_s=STALE_AFTER_S)
    pool.set_endpoints(endpoints(count))
    for number, figures in enumerate(zip(*columns, strict=True)):
        if any(figure is not None for figure in figures):
            pool.report(f"e{number}", signals(*figures, at=at, **fields), started_at=at)
    return pool


def view_of(queued: Figures = (), running: Figures = (), kv: Figures = ()) -> PoolView:
    """Return what `pool_of` shows at the moment of the report."""
    return pool_of(queued, running, kv).view(NOW)


def request(*, prompt_tokens: float = 0.0) -> InferenceRequest:
    """Return a completion request whose prompt has about `prompt_tokens`."""
    return InferenceRequest(path="/v1/completions", body_bytes=int(prompt_tokens * 4))
