"""Both ways of reading give the same, and their costs are told as they were measured."""

from pathlib import Path

import pytest

from tidegate.bench import scrape_costs
from tidegate.bench.scrape_costs import Comparison, Spread, compare_parsers, compare_scrapes, spread
from tidegate.bench.scrape_expositions import load_expositions
from tidegate.bench.scrape_servers import prerendered_servers
from tidegate.protocol.errors import TidegateError

ROUNDS = 3


def check(comparison: Comparison) -> None:
    """Check what holds of any figures."""
    for figures in (comparison.tidegate_cpu_s, comparison.prometheus_client_cpu_s, comparison.ratio):
        assert 0 < figures.low <= figures.median <= figures.high


def test_a_spread_has_the_quartiles() -> None:
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(median=3.0, low=2.0, high=4.0)


async def test_both_parsers_read_the_same_of_every_exposition() -> None:
    for exposition in load_expositions():
        comparison = await compare_parsers(exposition, rounds=ROUNDS, batch_s=0.001)

        check(comparison)
        assert (comparison.exposition, comparison.body_bytes) == (exposition.title, len(exposition.body))


async def test_parsers_that_read_different_values_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    read = scrape_costs.read_with_prometheus_client
    monkeypatch.setattr(scrape_costs, "read_with_prometheus_client", lambda *arguments: read(*arguments)[1:])

    with pytest.raises(TidegateError, match="Triton 7 kB: tidegate and prometheus_client read different samples"):
        await compare_parsers(load_expositions().triton, rounds=1, batch_s=0.001)


async def test_scrapes_are_real_gets_in_equal_numbers_for_equal_costs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def three_calls(*_: object) -> int:
        return 3

    monkeypatch.setattr(scrape_costs, "_calls", three_calls)
    exposition = load_expositions().vllm
    async with prerendered_servers(1, tmp_path) as servers:
        check(await compare_scrapes(exposition, servers.url(exposition), rounds=ROUNDS, batch_s=0.001))

        assert await servers.answered() == 2 * 3 * ROUNDS
