"""Turns: one at a time, and whoever waits goes before a loop that comes again at once."""

from __future__ import annotations

from threading import Event, Thread

import pytest

from worker.engine.transformers.turns import Turns


def test_given_someone_waits_when_the_turn_ends_then_the_one_that_had_it_queues_behind() -> None:
    turns, order, waits = Turns(), list[str](), Event()

    def other() -> None:
        waits.set()
        with turns.take():
            order.append("other")

    thread = Thread(target=other, daemon=True)
    with turns.take():
        thread.start()
        assert waits.wait(10)
        while not turns._next.locked():  # until it stands in the queue
            assert thread.is_alive()
    with turns.take():
        order.append("again")
    thread.join(10)
    assert order == ["other", "again"]


def test_given_an_error_in_a_turn_when_raised_then_the_next_one_may_go() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="broken"), turns.take():
        raise ValueError("broken")
    with turns.take():
        assert turns._model.locked()
