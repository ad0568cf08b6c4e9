"""The exporter's HTTP: `/metrics`, its own series at `/exporter/metrics`, and `/healthz`.

Publishing path: GET → Fetches → exported → **answer**.
"""

from collections.abc import Callable

from aiohttp import web

from tidegate.protocol.engines import EngineMapping
from tidegate.protocol.errors import ScrapeError
from tidegate.publish.exporter.fetches import Fetches
from tidegate.publish.exporter.rendering import join, only, render_load, render_status
from tidegate.publish.prometheus import CONTENT_TYPE

EXPOSITION_TYPES = ("text/plain", "application/openmetrics-text")
FILTER = "name[]"
"""Query parameter that names the only families wanted, as servers built on prometheus_client know it."""


def exporter_app(
    fetches: Fetches,
    engine: EngineMapping | None,
    *,
    clock: Callable[[], float],
    wall_clock: Callable[[], float],
) -> web.Application:
    """Return the application. `engine`: in whose names to publish; None: the server's own, all of its families.

    A filter by name is kept where the names are ours. Otherwise everything is passed on, as most servers do.
    """

    def status() -> bytes:
        return render_status(fetches.last, fetches.counts, now=clock())

    async def metrics(request: web.Request) -> web.Response:
        fetched = await fetches.latest()
        if fetched.scrape is None:
            return _bad_gateway(fetched.error, status())
        body = join(render_load(fetched.scrape, engine, wall_time=wall_clock()), status())
        ours = engine is not None or fetched.scrape.exposition is None
        if ours and FILTER in request.query:
            body = only(body, request.query.getall(FILTER))
        content_type = fetched.scrape.content_type
        passed_on = not ours and content_type.isprintable() and content_type.startswith(EXPOSITION_TYPES)
        return web.Response(body=body, headers={"Content-Type": content_type if passed_on else CONTENT_TYPE})

    async def own_metrics(_: web.Request) -> web.Response:
        await fetches.latest()  # what it says of the server is to be true now
        return web.Response(body=status(), headers={"Content-Type": CONTENT_TYPE})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    app.add_routes(
        [web.get("/metrics", metrics), web.get("/exporter/metrics", own_metrics), web.get("/healthz", healthz)]
    )
    return app


def _bad_gateway(error: ScrapeError | None, status: bytes) -> web.Response:
    """Answer without the server's metrics: the old ones would look as if they were fresh."""
    reason = " ".join(str(error).split())
    body = f"# {reason}\n".encode() + status
    return web.Response(status=502, body=body, headers={"Content-Type": CONTENT_TYPE})
