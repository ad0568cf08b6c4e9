"""A small fleet, scraped as a large one: what is counted agrees, and a busy loop is noticed."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tidegate.bench import scrape_fleet as module
from tidegate.bench.scrape_expositions import load_expositions
from tidegate.bench.scrape_fleet import delays_of, measure_loop, scrape_fleet
from tidegate.bench.scrape_servers import PrerenderedServers, prerendered_servers
from tidegate.protocol.errors import TidegateError

ENDPOINTS = 8


async def test_scraper_and_servers_count_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "WARM_UP_S", 0.0)
    async with prerendered_servers(ENDPOINTS, tmp_path) as servers:
        for exposition in load_expositions().parsed()[:2]:
            run = await scrape_fleet(exposition, servers, rate_hz=20, seconds=0.5)

            assert (run.missed, run.missed_in_all) == (0, 0)
            in_the_while = run.scrapes_per_s * run.loop.seconds
            assert round(in_the_while) == pytest.approx(in_the_while)
            assert 0 < in_the_while <= run.reported_in_all - ENDPOINTS
            assert run.reported_in_all <= run.answered_in_all <= run.reported_in_all + ENDPOINTS
            assert run.loop.cores > 0
            assert 0 <= run.loop.delay_p50_s <= run.loop.delay_p99_s <= run.loop.delay_max_s
            assert 0 <= run.loop.own_p99_s <= run.loop.own_max_s <= run.loop.delay_max_s


async def test_servers_that_do_not_answer_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WARM_UP_S", 0.0)
    monkeypatch.setattr(PrerenderedServers, "answered", _none)
    silent = await asyncio.start_server(_close, "127.0.0.1", 0)
    servers = PrerenderedServers([silent.sockets[0].getsockname()[1]])
    async with silent:
        run = await scrape_fleet(load_expositions().triton, servers, rate_hz=20, seconds=0.5)

    assert run.missed > 0
    assert run.missed_in_all >= run.missed
    assert (run.scrapes_per_s, run.reported_in_all) == (0.0, 0)


async def test_endpoints_that_cannot_all_be_asked_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_ROUND_TIMEOUT_S", 0.01)
    monkeypatch.setattr(PrerenderedServers, "answered", _none)
    hanging = await asyncio.start_server(_hang, "127.0.0.1", 0)
    servers = PrerenderedServers([hanging.sockets[0].getsockname()[1]])

    with pytest.raises(BaseExceptionGroup) as raised:
        async with hanging:
            await scrape_fleet(load_expositions().triton, servers, rate_hz=20, seconds=0.5)

    assert raised.group_contains(TidegateError, match="Use fewer --endpoints")


def work(seconds: float) -> None:
    """Keep a core busy for so much of its time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.mark.parametrize(("hold", "own"), [(work, True), (time.sleep, False)])
async def test_a_loop_that_was_held_came_late_be_it_by_its_own_work_or_not(
    hold: Callable[[float], None], own: bool
) -> None:
    async def hog() -> None:
        await asyncio.sleep(0.05)
        hold(0.2)

    hogging = asyncio.create_task(hog())
    load = await measure_loop(0.4)
    await hogging

    assert load.delay_max_s > 0.19
    assert load.delay_p99_s > 0.1  # of some 400 moments, half fell into it
    assert (load.own_max_s > 0.19) == own
    assert (load.own_p99_s > 0.1) == own
    assert load.seconds >= 0.4


def test_one_late_sleeper_stands_for_all_the_moments_it_slept_through() -> None:
    assert delays_of([0.0, 0.0035]) == pytest.approx([0.0, 0.0035, 0.0025, 0.0015, 0.0005])
    assert delays_of([]) == [0.0]


async def _none(_: PrerenderedServers) -> int:
    return 0


async def _close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()
