"""One endpoint's row: prediction since the last report, ejection, and repair of lost outcomes."""

import math
from itertools import count, pairwise

import pytest

from factories import endpoint, signals
from tidegate.pool.row import (
    EJECTION_S,
    MAX_EJECTION_S,
    REPAIR_AFTER_S,
    UNDOUBTED_REPAIR_AFTER_S,
    UNTRACKED_S,
    VISIBILITY_LAG_S,
    Dispatch,
    Row,
)

SCRAPE_S = 0.25  # exact in binary, so that times add up


def row_with(queued: int | None = 0, running: int | None = 0, kv: float | None = 0.0, **fields: int) -> Row:
    """Return a row that has reported at time 0."""
    row = Row(endpoint())
    row.correct(signals(queued, running, kv, at=0.0, **fields), 0.0)
    return row


def send(row: Row, dispatch_id: str, at: float, prompt_tokens: float = 0.0) -> Dispatch:
    dispatch = Dispatch(dispatch_id, at, prompt_tokens)
    row.add(dispatch)
    return dispatch


def report_every(row: Row, start: float, end: float, queued: int | None, running: int | None) -> list[str]:
    """Report the same figures again and again from `start` to `end`, both included; return the ids dropped."""
    lost: list[str] = []
    for step in count():
        now = start + step * SCRAPE_S
        if now > end:
            return lost
        lost += [dispatch.id for dispatch in row.correct(signals(queued, running, at=now), now)]
    return lost


class TestPrediction:
    def test_a_row_that_never_reported_predicts_nothing(self) -> None:
        row = Row(endpoint())
        send(row, "a", at=0.0)

        assert all(map(math.isnan, row.predict()))

    @pytest.mark.parametrize(("queued", "running", "kv"), [(None, 3, 0.5), (None, None, 0.5), (2, 3, None)])
    def test_only_what_the_server_did_not_say_is_unknown(self, queued, running, kv) -> None:
        predicted = row_with(queued, running, kv).predict()

        expected = [math.nan if figure is None else figure for figure in (queued, running, kv)]
        assert predicted == pytest.approx(tuple(expected), nan_ok=True)

    def test_a_server_that_tells_its_queue_alone_runs_what_of_ours_does_not_wait(self) -> None:
        row = row_with(queued=0, running=None)
        for number in range(5):
            send(row, f"r{number}", at=1.0)
        waiting = row.predict()[:2]

        row.correct(signals(1, None, at=2.0), 2.0)

        assert waiting == (5, 0)
        assert row.predict()[:2] == (1, 4)

    def test_what_was_sent_since_the_report_waits(self) -> None:
        row = row_with(queued=2, running=3)

        send(row, "a", at=1.0)
        send(row, "b", at=1.0)

        assert row.predict()[:2] == (4, 3)

    def test_what_we_sent_and_have_not_seen_end_waits_while_the_server_is_too_busy_to_say_so(self) -> None:
        row = row_with(queued=0, running=1)
        for number in range(5):
            send(row, str(number), at=1.0)

        row.correct(signals(0, 1, at=3.0), 3.0)  # asked for long after, but published before a long prefill

        assert row.predict()[:2] == (4, 1)

    def test_a_report_forgets_only_dispatches_it_can_have_seen(self) -> None:
        row = row_with()
        send(row, "seen", at=1.0 - VISIBILITY_LAG_S)
        send(row, "too late to be seen", at=1.0 - VISIBILITY_LAG_S / 2)
        send(row, "sent while the report was on its way", at=1.1)

        row.correct(signals(queued=7, running=0, at=1.2), 1.0)

        assert row.predict()[0] == 7 + 2
        assert row.in_flight == 3

    def test_an_end_after_the_report_empties_the_queue_first_then_the_batch(self) -> None:
        row = row_with()
        dispatches = [send(row, f"r{number}", at=0.0) for number in range(3)]
        row.correct(signals(queued=1, running=2, at=1.0), 1.0)

        predictions = []
        for dispatch in dispatches:
            row.remove(dispatch, now=1.5)
            predictions.append(row.predict()[:2])

        assert predictions == [(0, 2), (0, 1), (0, 0)]

    def test_an_end_heard_before_the_scrape_is_not_subtracted_twice(self) -> None:
        row = row_with()
        dispatch = send(row, "a", at=0.0)
        row.correct(signals(queued=5, running=0, at=1.0), 1.0)
        row.remove(dispatch, now=1.5)

        row.correct(signals(queued=4, running=0, at=2.1), 2.0)

        assert row.predict()[0] == 4

    def test_an_end_heard_while_the_scrape_was_on_its_way_is_still_subtracted(self) -> None:
        row = row_with()
        dispatch = send(row, "a", at=0.0)
        row.correct(signals(queued=5, running=0, at=1.0), 1.0)
        row.remove(dispatch, now=2.05)

        row.correct(signals(queued=5, running=0, at=2.1), 2.0)

        assert row.predict()[0] == 4

    def test_a_request_that_came_and_went_between_two_reports_leaves_no_trace(self) -> None:
        row = row_with(queued=2, running=3, kv=0.5, num_blocks=10, block_size=10)

        row.remove(send(row, "a", at=1.0, prompt_tokens=50.0), now=1.5)

        assert row.predict() == (2, 3, 0.5)

    def test_more_ends_than_the_server_reported_never_predict_below_zero(self) -> None:
        row = row_with()
        dispatches = [send(row, f"r{number}", at=0.0) for number in range(4)]
        row.correct(signals(queued=1, running=1, at=1.0), 1.0)

        for dispatch in dispatches:
            row.remove(dispatch, now=1.5)

        assert row.predict()[:2] == (0, 0)

    def test_removing_a_dispatch_of_another_row_changes_nothing(self) -> None:
        row = row_with(queued=2, running=2)
        send(row, "a", at=0.5)

        row.remove(Dispatch("elsewhere", 0.5, 0.0), now=1.0)

        assert row.in_flight == 1
        assert row.predict()[:2] == (3, 2)


class TestKvPrediction:
    def test_prompts_sent_since_the_report_fill_the_cache(self) -> None:
        row = row_with(kv=0.5, num_blocks=100, block_size=10)

        send(row, "a", at=1.0, prompt_tokens=100.0)
        send(row, "b", at=1.0, prompt_tokens=150.0)

        assert row.predict()[2] == pytest.approx(0.5 + 250 / 1000)

    def test_a_report_that_saw_the_prompt_does_not_count_it_again(self) -> None:
        row = row_with(kv=0.5, num_blocks=100, block_size=10)
        send(row, "a", at=1.0, prompt_tokens=100.0)

        row.correct(signals(kv=0.6, at=2.0, num_blocks=100, block_size=10), 2.0)

        assert row.predict()[2] == 0.6

    def test_a_prompt_the_report_cannot_have_seen_stays_counted_beside_one_it_has(self) -> None:
        row = row_with(kv=0.5, num_blocks=100, block_size=10)
        send(row, "seen", at=1.0, prompt_tokens=100.0)
        send(row, "unseen", at=2.0, prompt_tokens=200.0)

        row.correct(signals(kv=0.6, at=2.0, num_blocks=100, block_size=10), 2.0)

        assert row.predict()[2] == pytest.approx(0.6 + 200 / 1000)

    def test_the_prediction_never_exceeds_a_full_cache(self) -> None:
        row = row_with(kv=0.9, num_blocks=1, block_size=1)

        send(row, "a", at=1.0, prompt_tokens=1e9)

        assert row.predict()[2] == 1.0

    @pytest.mark.parametrize(
        "capacity", [{}, {"num_blocks": 100}, {"block_size": 16}, {"num_blocks": 0, "block_size": 16}]
    )
    def test_without_a_capacity_the_reported_utilization_stands(self, capacity) -> None:
        row = row_with(kv=0.25, **capacity)

        send(row, "a", at=1.0, prompt_tokens=1000.0)

        assert row.predict()[2] == 0.25


def doubted_row() -> Row:
    """Return a row whose log of outcomes breaks off after all that a test sends."""
    row = row_with()
    row.doubt(1.0)
    return row


class TestRepair:
    def test_lost_outcomes_are_forgotten_after_enough_reports_without_them(self) -> None:
        row = doubted_row()
        send(row, "a", at=0.0)
        send(row, "b", at=0.0)

        early = report_every(row, 1.0, 1.0 + REPAIR_AFTER_S - SCRAPE_S, queued=0, running=0)
        late = report_every(row, 1.0 + REPAIR_AFTER_S, 1.0 + REPAIR_AFTER_S, queued=0, running=0)

        assert early == []
        assert late == ["a", "b"]
        assert row.in_flight == 0

    def test_the_oldest_are_taken_for_the_lost_ones_and_only_as_many_as_are_missing(self) -> None:
        row = doubted_row()
        for number in range(5):
            send(row, f"r{number}", at=number * 0.1)

        lost = report_every(row, 1.0, 1.0 + REPAIR_AFTER_S, queued=1, running=2)

        assert lost == ["r0", "r1"]
        assert row.in_flight == 3

    def test_without_a_doubt_a_server_whose_figures_stand_still_is_believed_only_after_minutes(self) -> None:
        row = row_with()
        for number in range(5):
            send(row, f"r{number}", at=0.0)

        early = report_every(row, 1.0, 1.0 + UNDOUBTED_REPAIR_AFTER_S - SCRAPE_S, queued=0, running=0)
        assert early == []
        assert row.in_flight == 5
        late = report_every(row, 1.0 + UNDOUBTED_REPAIR_AFTER_S, 1.0 + UNDOUBTED_REPAIR_AFTER_S, queued=0, running=0)
        assert len(late) == 5

    def test_a_doubt_concerns_only_what_was_sent_before(self) -> None:
        row = row_with()
        send(row, "before", at=0.0)
        row.doubt(0.5)
        send(row, "after", at=0.75)

        assert report_every(row, 1.0, 60.0, queued=0, running=0) == ["before"]
        assert row.in_flight == 1

    def test_live_long_requests_are_never_dropped(self) -> None:
        row = doubted_row()
        for number in range(3):
            send(row, f"long{number}", at=0.0)

        assert report_every(row, 1.0, 600.0, queued=1, running=2) == []
        assert row.in_flight == 3

    def test_a_report_in_between_that_has_them_all_starts_the_wait_again(self) -> None:
        row = doubted_row()
        send(row, "a", at=0.0)

        before = report_every(row, 1.0, 1.0 + REPAIR_AFTER_S - SCRAPE_S, queued=0, running=0)
        between = report_every(row, 3.0, 3.0, queued=0, running=1)
        after = report_every(row, 3.25, 3.25 + REPAIR_AFTER_S - SCRAPE_S, queued=0, running=0)

        assert before + between + after == []
        assert row.in_flight == 1

    def test_only_the_smallest_difference_seen_meanwhile_is_repaired(self) -> None:
        row = doubted_row()
        for number in range(3):
            send(row, f"r{number}", at=0.0)

        report_every(row, 1.0, 1.0, queued=0, running=0)
        report_every(row, 2.0, 2.0, queued=0, running=2)
        lost = report_every(row, 1.0 + REPAIR_AFTER_S, 1.0 + REPAIR_AFTER_S, queued=0, running=0)

        assert lost == ["r0"]

    def test_after_a_repair_the_next_loss_waits_as_long(self) -> None:
        row = doubted_row()
        send(row, "a", at=0.0)
        send(row, "b", at=0.0)
        first = report_every(row, 1.0, 1.0 + REPAIR_AFTER_S, queued=0, running=1)

        too_soon = report_every(row, 3.25, 3.25 + REPAIR_AFTER_S - SCRAPE_S, queued=0, running=0)
        second = report_every(row, 3.25 + REPAIR_AFTER_S, 3.25 + REPAIR_AFTER_S, queued=0, running=0)

        assert (first, too_soon, second) == (["a"], [], ["b"])

    def test_a_request_the_reports_cannot_have_seen_is_not_lost(self) -> None:
        row = doubted_row()
        report_every(row, 1.0, 4.0, queued=0, running=0)
        send(row, "a", at=4.0)

        assert report_every(row, 4.0, 4.0, queued=0, running=0) == []
        assert row.in_flight == 1

    @pytest.mark.parametrize(("queued", "running"), [(None, 0), (0, None), (None, None)])
    def test_a_server_that_does_not_say_both_counts_disproves_nothing(self, queued, running) -> None:
        row = doubted_row()
        send(row, "a", at=0.0)

        assert report_every(row, 1.0, 60.0, queued=queued, running=running) == []
        assert row.in_flight == 1


class TestEjection:
    def test_each_failure_in_a_row_doubles_the_time_out_up_to_a_maximum(self) -> None:
        row = Row(endpoint())
        now, spans = 0.0, []
        for _ in range(8):
            row.eject(now)
            spans.append(row.ejected_until - now)
            now = row.ejected_until

        assert spans[0] == EJECTION_S
        assert all(later == min(2 * earlier, MAX_EJECTION_S) for earlier, later in pairwise(spans))
        assert spans[-1] == MAX_EJECTION_S

    def test_a_server_may_stay_dead_for_days(self) -> None:
        row = Row(endpoint())
        for _ in range(10_000):
            row.eject(row.ejected_until if row.failures else 0.0)
        until = row.ejected_until

        row.eject(until)

        assert row.ejected_until == until + MAX_EJECTION_S

    def test_failures_while_ejected_count_once(self) -> None:
        row = Row(endpoint())
        for _ in range(100):
            row.eject(0.0)

        assert row.ejected_until == EJECTION_S
        assert row.failures == 1

    def test_forgiveness_ends_the_time_out_and_the_doubling(self) -> None:
        row = Row(endpoint())
        row.eject(0.0)
        row.eject(EJECTION_S)

        row.forgive()
        forgiven_until = row.ejected_until
        row.eject(EJECTION_S)

        assert forgiven_until < 0.0
        assert row.ejected_until == EJECTION_S + EJECTION_S


class TestUntracked:
    """Requests whose end nobody will tell."""

    def test_they_count_until_a_report_can_have_seen_them(self) -> None:
        row = row_with(queued=0, running=0)
        row.add(Dispatch("a", 1.0, 100.0, tracked=False))

        assert row.correct(signals(0, 0, at=1.0), 1.0) == []
        assert (row.in_flight, row.predict()[0]) == (1, 1)

        [done] = row.correct(signals(0, 1, at=2.0), 2.0)
        assert done.id == "a"
        assert (row.in_flight, *row.predict()[:2]) == (0, 0, 1)

    def test_where_no_report_comes_to_see_them_they_count_for_a_while_only(self) -> None:
        row = Row(endpoint())
        send(row, "tracked", at=0.0)
        for second in range(100):
            row.add(Dispatch(str(second), float(second), 0.0, tracked=False))

        expired = [dispatch.id for dispatch in row.expire(50.0)]
        left = row.in_flight
        row.expire(100.0 + UNTRACKED_S)

        assert expired == [str(second) for second in range(int(50 - UNTRACKED_S) + 1)]
        assert left == 1 + 100 - len(expired)
        assert row.in_flight == 1  # the tracked one's end will be told

    def test_their_prompts_leave_the_prediction_of_the_cache_with_them(self) -> None:
        row = row_with(kv=0.0, num_blocks=10, block_size=100)
        row.add(Dispatch("a", 1.0, 500.0, tracked=False))
        before = row.predict()[2]

        row.expire(1.0 + UNTRACKED_S)

        assert (before, row.predict()[2]) == (0.5, 0.0)

    def test_one_that_is_told_of_all_the_same_ends_once(self) -> None:
        row = row_with(queued=0, running=0)
        dispatch = Dispatch("a", 1.0, 0.0, tracked=False)
        row.add(dispatch)

        row.remove(dispatch, 2.0)
        row.remove(dispatch, 2.0)

        assert row.in_flight == 0
