"""The pool: what filters and scorers see after reports, dispatches and outcomes."""

import numpy as np
import pytest

from factories import NOW, STALE_AFTER_S, endpoint, endpoints, pool_of, signals
from tidegate.pool.dispatches import MAX_ENDED
from tidegate.pool.row import EJECTION_S, REPAIR_AFTER_S
from tidegate.pool.table import Pool

NAN = float("nan")
ELSEWHERE = "192.0.2.1:8000"


def address(number: int) -> str:
    return endpoint(number).address


def send(pool: Pool, number: int, dispatch_id: str, now: float = NOW, prompt_tokens: float = 0.0) -> None:
    pool.dispatch(number, dispatch_id, now=now, prompt_tokens=prompt_tokens)


def fail(pool: Pool, number: int, now: float) -> None:
    """Send a request that nobody answers."""
    send(pool, number, f"fails at {now}", now=now)
    pool.release(f"fails at {now}", now=now, answered_by="")


def eligible(pool: Pool, now: float = NOW) -> list[bool]:
    return pool.view(now).eligible.tolist()


def answer(pool: Pool, index: int, at: float, *, well: bool) -> None:
    """Let an endpoint answer one request."""
    pool.dispatch(index, "answered", now=at, prompt_tokens=0.0)
    assert pool.release("answered", now=at, answered_by=address(index), well=well)


class TestView:
    def test_columns_hold_the_reports_in_the_order_of_the_endpoints(self) -> None:
        view = pool_of(queued=[4, 0], running=[2, 9], kv=[0.5, 1.0]).view(NOW)

        assert [endpoint.name for endpoint in view.endpoints] == ["e0", "e1"]
        assert view.queued_requests.tolist() == [4, 0]
        assert view.running_requests.tolist() == [2, 9]
        assert view.kv_utilization.tolist() == [0.5, 1.0]
        assert view.in_flight.tolist() == [0, 0]
        assert view.eligible.tolist() == [True, True]

    def test_an_empty_pool_has_empty_columns(self) -> None:
        view = pool_of().view(NOW)

        assert [column.shape for column in (view.queued_requests, view.in_flight, view.eligible)] == [(0,)] * 3

    def test_what_an_endpoint_did_not_say_is_nan_or_what_we_sent(self) -> None:
        pool = pool_of(queued=[None, 1], running=[6, None], kv=[None, 0.5])
        for number in range(4):
            pool.dispatch(number % 2, f"r{number}", now=NOW - 1, prompt_tokens=0.0)
        pool.report("e1", signals(queued=1, kv=0.5), started_at=NOW)

        view = pool.view(NOW)

        assert view.queued_requests.tolist() == [2, 1]
        assert view.running_requests.tolist() == [6, 1]  # of the two we sent to the second one waits
        assert view.kv_utilization == pytest.approx([NAN, 0.5], nan_ok=True)

    def test_an_endpoint_that_never_reported_is_unknown_but_not_blocked(self) -> None:
        view = pool_of(queued=[None, 0], kv=[None, 0.0]).view(NOW)

        assert np.isnan(view.kv_utilization).tolist() == [True, False]
        assert view.eligible.tolist() == [True, True]

    def test_a_stale_row_falls_back_to_our_own_count_and_never_blocks(self) -> None:
        pool = pool_of(queued=[40], running=[8], kv=[0.9])
        send(pool, 0, "a")
        fresh_until = NOW + STALE_AFTER_S

        fresh, stale = pool.view(fresh_until), pool.view(fresh_until + 0.001)

        assert (fresh.queued_requests[0], fresh.running_requests[0], fresh.kv_utilization[0]) == (41, 8, 0.9)
        assert stale.queued_requests[0] == 1
        assert np.isnan([stale.running_requests[0], stale.kv_utilization[0]]).all()
        assert stale.eligible.all()

    def test_a_missed_scrape_changes_nothing_but_the_age(self) -> None:
        pool = pool_of(queued=[4], running=[2], kv=[0.5])

        pool.miss("e0", error="timed out", reachable=None, now=NOW)

        view = pool.view(NOW)
        assert (view.queued_requests[0], view.running_requests[0], view.kv_utilization[0]) == (4, 2, 0.5)
        assert view.eligible.all()

    def test_an_earlier_view_keeps_its_predictions(self) -> None:
        pool = pool_of(queued=[0, 0])
        before = pool.view(NOW)

        send(pool, 0, "a")

        assert before.queued_requests.tolist() == [0, 0]


class TestRelease:
    def test_a_request_is_released_exactly_once(self) -> None:
        pool = pool_of(queued=[0])
        send(pool, 0, "a")
        send(pool, 0, "b")

        first = pool.release("a", now=NOW, answered_by=address(0))
        second = pool.release("a", now=NOW, answered_by=address(0))

        assert (first, second) == (True, False)
        assert pool.view(NOW).in_flight.tolist() == [1]

    @pytest.mark.parametrize("answered_by", [None, "", ELSEWHERE])
    def test_an_id_from_elsewhere_is_ignored(self, answered_by) -> None:
        pool = pool_of(queued=[0, 2])
        send(pool, 1, "a")

        assert pool.release("another process's", now=NOW, answered_by=answered_by) is False
        assert pool.view(NOW).in_flight.tolist() == [0, 1]
        assert eligible(pool) == [True, True]

    def test_a_lost_outcome_is_repaired_and_its_late_arrival_ignored(self) -> None:
        pool = pool_of(queued=[0], running=[0])
        send(pool, 0, "lost")
        pool.doubt(NOW)

        for at in (NOW + 1, NOW + 1 + REPAIR_AFTER_S):
            pool.report("e0", signals(0, 0, at=at), started_at=at)
        repaired = pool.view(NOW).in_flight.tolist()
        released = pool.release("lost", now=NOW + 60, answered_by=address(0))

        assert repaired == [0]
        assert released is False
        assert pool.view(NOW).in_flight.tolist() == [0]


class TestOrigin:
    def test_the_end_of_a_request_whose_decision_nobody_read_is_found_by_where_it_came_from(self) -> None:
        pool = pool_of(queued=[0])
        for moment in (7, 8):
            pool.dispatch(0, f"at {moment}", now=NOW, prompt_tokens=0.0, origin=("10.0.9.9:5000", moment))

        pool.release_from(("10.0.9.9:5000", 7), now=NOW)
        pool.release_from(("10.0.9.9:5000", 9), now=NOW)

        assert pool.view(NOW).in_flight.tolist() == [1]
        assert pool.release("at 8", now=NOW, answered_by=None)

    def test_a_decision_that_comes_after_the_end_of_its_request_is_not_counted(self) -> None:
        pool = pool_of(queued=[0])
        pool.release_from("there", now=NOW)

        pool.dispatch(0, "late", now=NOW, prompt_tokens=0.0, origin="there")
        assert pool.view(NOW).in_flight.tolist() == [0]
        assert pool.rows[0].picks == 0

        pool.dispatch(0, "another", now=NOW, prompt_tokens=0.0, origin="there")
        assert pool.view(NOW).in_flight.tolist() == [1]

    def test_requests_without_an_origin_have_nothing_in_common(self) -> None:
        pool = pool_of(queued=[0])
        pool.dispatch(0, "a", now=NOW, prompt_tokens=0.0)
        pool.release_from(None, now=NOW)
        pool.dispatch(0, "b", now=NOW, prompt_tokens=0.0)

        assert pool.view(NOW).in_flight.tolist() == [2]

    def test_only_so_many_ends_without_a_decision_are_remembered(self) -> None:
        pool = pool_of(queued=[0])
        for number in range(MAX_ENDED + 1):
            pool.release_from(number, now=NOW)

        for number in (0, 1, MAX_ENDED):
            pool.dispatch(0, f"late {number}", now=NOW, prompt_tokens=0.0, origin=number)

        assert pool.view(NOW).in_flight.tolist() == [1]

    def test_of_two_from_the_same_place_the_later_is_found_and_both_can_end(self) -> None:
        pool = pool_of(queued=[0])
        for name in ("a", "b"):
            pool.dispatch(0, name, now=NOW, prompt_tokens=0.0, origin="there")

        assert pool.release("a", now=NOW, answered_by=None)
        pool.release_from("there", now=NOW)

        assert pool.view(NOW).in_flight.tolist() == [0]
        assert not pool.release("b", now=NOW, answered_by=None)

    def test_with_its_endpoint_a_request_leaves_no_trace(self) -> None:
        pool = pool_of(queued=[0])
        pool.dispatch(0, "a", now=NOW, prompt_tokens=0.0, origin="there")

        pool.set_endpoints([])
        pool.release_from("there", now=NOW)

        assert pool.view(NOW).in_flight.tolist() == []


class TestDoubt:
    def test_where_no_report_can_repair_the_count_it_is_dropped_at_once(self) -> None:
        pool = pool_of(queued=[None, 0, 0], running=[None, None, 0], kv=[0.5, None, None])
        for number in range(3):
            pool.dispatch(number, f"r{number}", now=NOW, prompt_tokens=100.0)

        pool.doubt(NOW)

        assert pool.view(NOW).in_flight.tolist() == [0, 0, 1]
        assert [pool.release(f"r{number}", now=NOW, answered_by=None) for number in range(3)] == [False, False, True]


class TestEligibility:
    def test_an_answer_by_the_endpoint_itself_ejects_nobody(self) -> None:
        pool = pool_of(queued=[0, 0])
        send(pool, 0, "a")

        pool.release("a", now=NOW, answered_by=address(0))

        assert eligible(pool) == [True, True]

    @pytest.mark.parametrize("answered_by", ["", address(1), ELSEWHERE])
    def test_an_endpoint_whose_request_another_or_nobody_answered_is_passed_over_for_a_while(self, answered_by) -> None:
        pool = pool_of(queued=[0, 0])
        send(pool, 0, "a")

        pool.release("a", now=NOW, answered_by=answered_by)

        assert eligible(pool, NOW) == [False, True]
        assert eligible(pool, NOW + EJECTION_S - 0.001) == [False, True]
        assert eligible(pool, NOW + EJECTION_S) == [True, True]

    def test_a_client_that_left_blames_nobody(self) -> None:
        pool = pool_of(queued=[0])
        send(pool, 0, "a")

        pool.release("a", now=NOW, answered_by=None)

        assert eligible(pool) == [True]

    def test_a_dead_server_that_held_many_requests_is_ejected_once(self) -> None:
        pool = pool_of(queued=[0])
        for number in range(50):
            send(pool, 0, f"r{number}")

        for number in range(50):
            pool.release(f"r{number}", now=NOW, answered_by="")

        assert eligible(pool, NOW + EJECTION_S) == [True]

    def test_a_failure_right_after_an_ejection_doubles_it(self) -> None:
        pool = pool_of(queued=[0])
        fail(pool, 0, NOW)
        again = NOW + EJECTION_S

        fail(pool, 0, again)

        assert eligible(pool, again + 2 * EJECTION_S - 0.001) == [False]
        assert eligible(pool, again + 2 * EJECTION_S) == [True]

    def test_an_answer_ends_the_doubling(self) -> None:
        pool = pool_of(queued=[0])
        fail(pool, 0, NOW)
        again = NOW + EJECTION_S
        send(pool, 0, "answered", now=again)
        pool.release("answered", now=again, answered_by=address(0))

        fail(pool, 0, again)

        assert eligible(pool, again + EJECTION_S) == [True]

    @pytest.mark.parametrize("reports", [True, False])
    def test_an_unreachable_endpoint_is_excluded_until_it_is_there_whatever_it_says(self, reports) -> None:
        pool = pool_of(queued=[0, 0])

        pool.miss("e0", error="refused", reachable=False, now=NOW)
        refused = eligible(pool, NOW + 1e6)
        pool.miss("e0", error="timed out", reachable=None, now=NOW)
        still = eligible(pool, NOW + 1e6)
        if reports:
            pool.report("e0", signals(queued=0, at=NOW + 2e6), started_at=NOW + 2e6)
        else:
            pool.miss("e0", error="status 404", reachable=True, now=NOW)

        assert refused == still == [False, True]
        assert eligible(pool, NOW + 2e6) == [True, True]

    def test_bad_answers_in_a_row_pass_an_endpoint_over_and_a_good_one_between_them_does_not(self) -> None:
        pool = pool_of(queued=[0, 0])
        states = []
        for well in [False, False, True, False, False, False]:
            answer(pool, 0, NOW, well=well)
            states.append(eligible(pool, NOW)[0])

        assert states == [True] * 5 + [False]
        assert eligible(pool, NOW + EJECTION_S) == [True, True]

    def test_one_more_bad_answer_after_that_passes_it_over_for_longer(self) -> None:
        pool = pool_of(queued=[0, 0])
        for at in [NOW, NOW, NOW, NOW + EJECTION_S]:
            answer(pool, 0, at, well=False)

        assert eligible(pool, NOW + 2.9 * EJECTION_S) == [False, True]
        assert eligible(pool, NOW + 3 * EJECTION_S) == [True, True]

    def test_where_all_answer_badly_nobody_is_passed_over_for_it(self) -> None:
        pool = pool_of(queued=[0, 0, 0])
        for _ in range(10):
            for index in range(3):
                answer(pool, index, NOW, well=False)
        assert eligible(pool, NOW) == [True, True, True]

        answer(pool, 1, NOW, well=True)
        answer(pool, 0, NOW, well=False)
        assert eligible(pool, NOW) == [False, True, True]

    def test_a_request_that_others_answer_badly_too_passes_nobody_over_at_once(self) -> None:
        pool = pool_of(queued=[0, 0])
        pool.dispatch(0, "a", now=NOW, prompt_tokens=0.0)

        assert pool.release("a", now=NOW, answered_by=address(1), well=False)

        assert eligible(pool, NOW) == [True, True]

    def test_the_last_that_can_be_picked_is_not_passed_over_for_bad_answers(self) -> None:
        pool = pool_of(queued=[0, 0])
        pool.miss("e1", error="refused", reachable=False, now=NOW)
        for _ in range(10):
            answer(pool, 0, NOW, well=False)

        assert eligible(pool, NOW) == [True, False]

    def test_a_server_that_is_back_is_forgiven(self) -> None:
        pool = pool_of(queued=[0])
        fail(pool, 0, NOW)
        pool.miss("e0", error="refused", reachable=False, now=NOW)

        pool.report("e0", signals(queued=0), started_at=NOW)

        assert eligible(pool, NOW) == [True]

    def test_a_server_whose_metrics_answered_all_along_is_not_forgiven(self) -> None:
        pool = pool_of(queued=[0])
        fail(pool, 0, NOW)

        pool.report("e0", signals(queued=0), started_at=NOW)

        assert eligible(pool, NOW) == [False]

    @pytest.mark.parametrize("name", ["", "e1", "gone"])
    def test_reports_and_misses_of_a_name_that_left_are_ignored(self, name) -> None:
        pool = pool_of(queued=[3])

        pool.report(name, signals(queued=9), started_at=NOW)
        pool.miss(name, error="refused", reachable=False, now=NOW)

        assert pool.view(NOW).queued_requests.tolist() == [3]
        assert eligible(pool) == [True]


class TestMembers:
    def test_an_endpoint_that_left_takes_its_dispatches_with_it(self) -> None:
        pool = pool_of(queued=[0, 0])
        send(pool, 0, "a")
        everyone = pool.endpoints

        pool.set_endpoints(everyone[1:])
        released = pool.release("a", now=NOW, answered_by="")
        pool.set_endpoints(everyone)

        assert released is False
        assert pool.view(NOW).in_flight.tolist() == [0, 0]
        assert eligible(pool) == [True, True]

    def test_an_endpoint_that_stays_keeps_its_history_wherever_it_moves(self) -> None:
        pool = pool_of(queued=[1, 2, 3], running=[4, 5, 6])
        send(pool, 2, "a")
        fail(pool, 1, NOW)

        pool.set_endpoints([endpoint(2), endpoint(7), endpoint(1)])

        view = pool.view(NOW)
        assert view.queued_requests.tolist() == [4, 0, 2]
        assert view.running_requests == pytest.approx([6, NAN, 5], nan_ok=True)
        assert view.in_flight.tolist() == [1, 0, 0]
        assert view.eligible.tolist() == [True, True, False]

    def test_outcomes_and_reports_reach_a_row_that_moved(self) -> None:
        pool = pool_of(queued=[0, 0])
        send(pool, 1, "a")

        pool.set_endpoints([endpoint(1), endpoint(0)])
        pool.report("e1", signals(queued=5, at=NOW + 1), started_at=NOW + 1)
        pool.release("a", now=NOW + 2, answered_by=address(1))

        view = pool.view(NOW + 2)
        assert view.queued_requests.tolist() == [4, 0]
        assert view.in_flight.tolist() == [0, 0]

    def test_the_same_name_at_another_address_is_another_server(self) -> None:
        pool = pool_of(queued=[9], running=[9])
        send(pool, 0, "a")

        pool.set_endpoints([endpoint(0, address="10.9.9.9:8000")])

        assert pool.view(NOW).queued_requests.tolist() == [0]
        assert pool.release("a", now=NOW, answered_by="") is False
        assert eligible(pool) == [True]

    def test_endpoints_are_found_by_the_address_the_gateway_reports(self) -> None:
        pool = pool_of(queued=[0, 0])

        pool.set_endpoints(endpoints(1))

        assert pool.endpoint_at(address(0)) == endpoint(0)
        assert pool.endpoint_at(address(1)) is None


class TestState:
    def test_the_state_names_what_most_keeps_requests_away(self) -> None:
        pool = pool_of(queued=[None, 0])
        unknown, known = pool.rows
        states = [pool.state(unknown, NOW), pool.state(known, NOW), pool.state(known, NOW + STALE_AFTER_S + 1)]

        fail(pool, 1, NOW)
        states.append(pool.state(known, NOW))
        pool.miss("e1", error="refused", reachable=False, now=NOW)
        states.append(pool.state(known, NOW))

        assert states == ["unknown", "ready", "stale", "ejected", "unreachable"]
