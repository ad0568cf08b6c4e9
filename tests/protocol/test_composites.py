"""The composite metrics: what waits, and how full the KV cache is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.protocol.composites import used_fraction, waiting_requests

counts = st.integers(min_value=0, max_value=2**63)


def test_active_requests_that_are_not_scheduled_wait() -> None:
    assert waiting_requests(active=5, scheduled=3) == 2


def test_requests_queued_outside_active_wait_too() -> None:
    assert waiting_requests(active=1, scheduled=1, queued=7) == 7


def test_statistics_without_a_queue_count_as_an_empty_one() -> None:
    assert waiting_requests(4, 1, None) == 3


def test_counts_read_between_two_iterations_never_give_a_negative_queue() -> None:
    assert waiting_requests(active=2, scheduled=5) == 0


def test_the_fraction_is_used_of_max() -> None:
    assert used_fraction(used=5495, maximum=7240) == pytest.approx(0.758977, abs=1e-6)


@pytest.mark.parametrize("used", [0, 3])
def test_a_server_without_blocks_uses_none(used: int) -> None:
    assert used_fraction(used, 0) == 0.0


@given(st.integers(), st.integers())
def test_the_fraction_stays_within_0_and_1(used: int, maximum: int) -> None:
    assert 0.0 <= used_fraction(used, maximum) <= 1.0


@given(counts, counts, st.none() | counts)
def test_the_queue_is_never_negative(active: int, scheduled: int, queued: int | None) -> None:
    assert waiting_requests(active, scheduled, queued) >= 0
