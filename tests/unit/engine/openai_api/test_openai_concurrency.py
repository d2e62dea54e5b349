from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.openai_api.concurrency import Window


def _full_rounds(window: Window, rounds: int) -> Window:
    """So many round trips, in each of which the whole window succeeds."""
    for _ in range(rounds):
        for _ in range(window.size):
            window = window.succeeded(window.size)
    return window


def test_given_a_new_window_when_all_succeeds_then_it_doubles_per_round() -> None:
    window = Window.new(64)
    assert window.size == 8
    assert _full_rounds(window, 1).size == 16
    assert _full_rounds(window, 2).size == 32


def test_given_a_ceiling_when_all_succeeds_then_it_stops_there() -> None:
    assert Window.new(3).size == 3
    assert _full_rounds(Window.new(10), 5).size == 10


def test_given_an_overload_when_it_has_halved_then_it_grows_by_one_per_round() -> None:
    window = _full_rounds(Window.new(64), 2).overloaded(sent_at=0, now=1)
    assert window.size == 16
    for more in range(1, 5):
        assert _full_rounds(window, more).size in (16 + more, 16 + more - 1)


def test_given_many_refusals_of_one_round_when_they_come_then_it_falls_once() -> None:
    window = Window.new(64)
    for now in (1.0, 1.1, 1.2):
        window = window.overloaded(sent_at=0.5, now=now)
    assert window.size == 4
    assert window.overloaded(sent_at=1.0, now=2.0).size == 2


def test_given_a_window_that_is_not_used_when_requests_succeed_then_it_does_not_grow() -> None:
    assert Window.new(64).succeeded(on_wire=7).size == 8


@given(st.lists(st.one_of(st.none(), st.floats(0, 10)), max_size=200), st.integers(1, 200))
def test_given_any_history_when_it_is_over_then_the_window_is_between_one_and_its_ceiling(
    history: list[float | None], ceiling: int
) -> None:
    window, now = Window.new(ceiling), 0.0
    for age in history:
        now += 0.1
        window = (
            window.succeeded(window.size)
            if age is None
            else window.overloaded(sent_at=now - age, now=now)
        )
        assert 1 <= window.size <= ceiling
