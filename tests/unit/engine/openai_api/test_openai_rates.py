from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.openai_api.rates import SlidingLimit


def test_given_no_limit_when_asked_then_nobody_waits() -> None:
    limit = SlidingLimit(float("inf"))
    for _ in range(100):
        limit.take(0, 1e9)
    assert limit.wait(0, 1e9) == 0


def test_given_a_full_minute_when_asked_then_the_oldest_is_waited_for() -> None:
    limit = SlidingLimit(2)
    limit.take(10, 1)
    limit.take(15, 1)
    assert limit.wait(20, 1) == 50
    assert limit.wait(20, 2) == 55
    assert limit.wait(70, 1) == 0


def test_given_more_than_the_whole_limit_when_nothing_else_was_taken_then_it_may_go() -> None:
    limit = SlidingLimit(100)
    assert limit.wait(0, 500) == 0
    limit.take(0, 500)
    assert limit.wait(1, 1) == 59


def test_given_a_correction_when_it_was_less_then_there_is_room_again() -> None:
    limit = SlidingLimit(100)
    taken = limit.take(0, 90)
    assert limit.wait(1, 20) == 59
    limit.correct(taken, 30, now=2)
    assert limit.wait(2, 20) == 0
    assert limit.wait(2, 71) == 58


def test_given_a_late_correction_when_its_minute_is_over_then_it_changes_nothing() -> None:
    limit = SlidingLimit(100)
    old = limit.take(0, 90)
    limit.take(61, 50)
    limit.correct(old, 10, now=61)
    assert limit.wait(61, 50) == 0
    assert limit.wait(61, 51) == pytest.approx(60)


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 5)), min_size=1, max_size=60),
)
def test_given_any_arrivals_when_each_waits_as_told_then_no_minute_has_more_than_the_limit(
    per_minute: int, arrivals: list[tuple[float, int]]
) -> None:
    limit, now = SlidingLimit(per_minute), 0.0
    sent: list[tuple[float, int]] = []
    for pause, amount in arrivals:
        now += pause
        amount = min(amount, per_minute)
        while (wait := limit.wait(now, amount)) > 0:
            now = max(now + wait, now + 1e-9)
        limit.take(now, amount)
        sent.append((now, amount))
    for end, _ in sent:
        within = sum(amount for at, amount in sent if at <= end and at + 60.0 > end)
        assert within <= per_minute
