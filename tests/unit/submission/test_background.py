"""One call at a time beside the caller."""

from __future__ import annotations

import threading

import pytest

from db.errors import DatabaseUnavailable
from db.patience import patiently
from producer.submission.background import Background


def test_given_two_calls_when_run_then_the_second_one_waits_for_the_first() -> None:
    background = Background()
    go, seen = threading.Event(), list[str]()

    def first() -> None:
        go.wait(30)
        seen.append("first")

    background.run(first)
    assert seen == []
    go.set()
    background.run(lambda: seen.append("second"))
    background.wait()
    assert seen == ["first", "second"]


def test_given_a_call_that_fails_when_waited_for_then_its_error_is_raised_and_nothing_follows() -> (
    None
):
    background = Background()
    seen: list[str] = []

    def fail() -> None:
        raise ValueError("broken")

    background.run(fail)
    with pytest.raises(ValueError, match="broken"):
        background.run(lambda: seen.append("never"))
    background.abandon()
    assert seen == []


def test_given_a_call_that_waits_for_a_service_when_abandoned_then_it_gives_up_at_once() -> None:
    background = Background()
    asked = threading.Event()

    def away() -> None:
        asked.set()
        raise DatabaseUnavailable("it is away")

    background.run(lambda: patiently(away, 600, stop=background.abandoned))
    assert asked.wait(30)
    background.abandon()  # hangs if it does not
    with pytest.raises(DatabaseUnavailable):
        background.wait()
