"""Seed → arrivals, and the order of the runs."""

from tidegate.bench.demo import ROUND_ROBIN, TIDEGATE, DemoPlan


def test_seeds_give_both_orders_and_one_seed_always_the_same() -> None:
    orders = [tuple(DemoPlan(seed=seed).order()) for seed in range(20)]

    assert set(orders) == {(ROUND_ROBIN, TIDEGATE), (TIDEGATE, ROUND_ROBIN)}
    assert orders == [tuple(DemoPlan(seed=seed).order()) for seed in range(20)]


def test_every_seed_has_the_same_load_within_the_same_time() -> None:
    for seed in range(5):
        arrivals = DemoPlan(seed=seed, duration_s=4.0, rate_per_s=15.0).arrivals()

        assert len(arrivals) == 60
        assert arrivals[-1].at_s == 4.0
        assert arrivals == DemoPlan(seed=seed, duration_s=4.0, rate_per_s=15.0).arrivals()
