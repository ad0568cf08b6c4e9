"""The picker's own HTTP: `/debug/pool` for people and `tidegate up`, `/metrics` for Prometheus, `/healthz`."""

from collections.abc import Callable, Iterator, Sequence

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

from tidegate.gateway.report import render_metrics, report_pool
from tidegate.pool.outcomes import Outcomes
from tidegate.pool.table import Pool


class _PoolCollector(Collector):
    def __init__(self, pool: Pool, outcomes: Outcomes, clock: Callable[[], float]) -> None:
        self._pool = pool
        self._outcomes = outcomes
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        return render_metrics(self._pool, self._outcomes, self._clock())


def admin_app(
    pool: Pool, outcomes: Outcomes, clock: Callable[[], float], *, problems: Callable[[], Sequence[str]]
) -> web.Application:
    """Return the application; it only reads. `problems` tells what keeps endpoints out of the pool."""
    registry = CollectorRegistry()
    registry.register(_PoolCollector(pool, outcomes, clock))

    async def debug_pool(_: web.Request) -> web.Response:
        report = report_pool(pool, outcomes, clock(), problems=problems())
        return web.Response(body=msgspec.json.encode(report), content_type="application/json")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    app.add_routes([web.get("/debug/pool", debug_pool), web.get("/metrics", metrics), web.get("/healthz", healthz)])
    return app
