"""Where and when the scraper looks for an endpoint's metrics."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator

import pytest

from processes import until
from servers import ModelServer, model_server, model_servers
from tidegate.pool import scraper
from tidegate.pool.endpoint import Endpoint
from tidegate.pool.scraper import Scraper, exposition_urls
from tidegate.pool.table import Pool


def at(address: str, **fields: object) -> Endpoint:
    """Return an endpoint there."""
    host, _, port = address.rpartition(":")
    return Endpoint(name=address, host=host, port=int(port), address=address, **fields)  # type: ignore[arg-type]


def sought(*endpoints: Endpoint) -> list[list[str]]:
    """Return the URLs tried for each."""
    return [[str(url).removeprefix("http://") for url in urls] for urls in exposition_urls(endpoints).values()]


def test_the_only_endpoint_of_a_host_may_have_them_on_tritons_metrics_port() -> None:
    assert sought(at("10.0.0.1:8000"), at("10.0.0.2:8000")) == [
        ["10.0.0.1:8000/metrics", "10.0.0.1:8000/prometheus/metrics", "10.0.0.1:8002/metrics"],
        ["10.0.0.2:8000/metrics", "10.0.0.2:8000/prometheus/metrics", "10.0.0.2:8002/metrics"],
    ]


def test_no_endpoint_is_given_the_figures_of_a_neighbour_on_its_host() -> None:
    assert sought(at("10.0.0.1:8000"), at("10.0.0.1:8010")) == [
        ["10.0.0.1:8000/metrics", "10.0.0.1:8000/prometheus/metrics"],
        ["10.0.0.1:8010/metrics", "10.0.0.1:8010/prometheus/metrics"],
    ]


def test_a_named_place_is_the_only_one_and_leaves_the_others_to_be_found() -> None:
    named = at("10.0.0.1:8010", metrics_port=8012, metrics_path="/m")
    assert sought(at("10.0.0.1:8000"), named) == [
        ["10.0.0.1:8000/metrics", "10.0.0.1:8000/prometheus/metrics", "10.0.0.1:8002/metrics"],
        ["10.0.0.1:8012/m"],
    ]
    elsewhere = at("10.0.0.1:8010", metrics_host="10.0.0.9", metrics_path="/")
    assert sought(elsewhere) == [["10.0.0.9:8010/"]]


@contextlib.asynccontextmanager
async def scraping(*servers: ModelServer, interval_s: float = 0.01) -> AsyncIterator[Pool]:
    """Scrape these servers into a pool."""
    pool = Pool(stale_after_s=60)
    running = Scraper(pool, interval_s=interval_s, timeout_s=5, clock=time.monotonic, rng=random.Random(1))
    members = [at(server.address) for server in servers]
    pool.set_endpoints(members)
    running.set_endpoints(members)
    task = asyncio.create_task(running.run())
    try:
        yield pool
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_server_whose_metrics_hang_is_not_asked_again_meanwhile_and_delays_nobody() -> None:
    async with model_servers(2) as (hung, quick), scraping(hung, quick):
        await until(lambda: _scraped(hung, 1))
        hung.metrics_release.clear()
        await until(lambda: _hangs(hung))
        asked, others = hung.scraped, quick.scraped

        await until(lambda: _scraped(quick, others + 20))

        assert hung.scraped == asked


async def test_a_server_without_metrics_is_asked_ever_more_rarely_until_it_has_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with model_server("a") as server, model_server("b") as other, scraping(server, other) as pool:
        monkeypatch.setattr(scraper, "MAX_PAUSE_S", 0.16)
        server.metrics = 404
        await until(lambda: _missed(pool))
        asked, others = server.scraped, other.scraped

        await until(lambda: _scraped(other, others + 100))
        assert server.scraped - asked < 50

        server.metrics = None
        await until(lambda: _not_missed(pool))
        asked, others = server.scraped, other.scraped
        await until(lambda: _scraped(other, others + 100))
        assert server.scraped - asked > 50


async def test_between_two_reports_the_event_loop_gets_to_everything_else() -> None:
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(model_server(str(number))) for number in range(20)]
        pool = await stack.enter_async_context(scraping(*servers))
        await until(lambda: _all_reported(pool))
        reports_at_once = 0

        def reports() -> list[float]:
            return [row.signals.observed_at for row in pool.rows if row.signals]

        for _ in range(5):
            for server in servers:
                server.metrics_release.clear()
            await until(lambda: _all_hang(servers))
            for server in servers:
                server.metrics_release.set()
            before, first = reports(), reports()
            while any(map(float.__eq__, first, reports())):
                await asyncio.sleep(0)
                reports_at_once = max(reports_at_once, sum(map(float.__ne__, before, reports())))
                before = reports()

        assert reports_at_once == 1


async def _scraped(server: ModelServer, count: int) -> bool:
    return server.scraped >= count


async def _hangs(server: ModelServer) -> bool:
    return server.scrapes_waiting == 1


async def _all_hang(servers: list[ModelServer]) -> bool:
    return all(server.scrapes_waiting for server in servers)


async def _all_reported(pool: Pool) -> bool:
    return all(row.signals for row in pool.rows)


async def _missed(pool: Pool) -> bool:
    return bool(pool.rows[0].error)


async def _not_missed(pool: Pool) -> bool:
    return not pool.rows[0].error
