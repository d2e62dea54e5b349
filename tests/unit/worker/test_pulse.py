"""A regular duty goes on, whatever happens to it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from db.errors import DatabaseUnavailable
from tests.support.processes import eventually
from worker.pulse import Pulse

Make = Callable[[Callable[[], float]], Pulse]


@pytest.fixture
def started() -> Iterator[Make]:
    made: list[Pulse] = []

    def make(beat: Callable[[], float]) -> Pulse:
        made.append(Pulse("duty", beat, retry=0.01))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.stop()


def actions(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [getattr(one, "action", "") for one in caplog.records]


def test_given_a_duty_when_started_then_it_beats_until_it_is_stopped(started: Make) -> None:
    beats: list[int] = []

    def beat() -> float:
        beats.append(1)
        return 0.0

    pulse = started(beat)
    eventually(lambda: len(beats) > 5, what="the duty beats")
    pulse.stop()
    count = len(beats)
    assert "duty" not in {thread.name for thread in threading.enumerate()}
    assert len(beats) == count


@pytest.mark.parametrize(
    ("error", "level"),
    [(DatabaseUnavailable("away"), "WARNING"), (ZeroDivisionError("a surprise"), "ERROR")],
)
def test_given_an_error_when_it_beats_then_that_is_told_once_and_it_goes_on(
    started: Make, caplog: pytest.LogCaptureFixture, error: Exception, level: str
) -> None:
    beats: list[int] = []

    def beat() -> float:
        beats.append(1)
        if len(beats) <= 3:
            raise error
        return 0.0 if len(beats) < 6 else 60.0

    with caplog.at_level(logging.INFO):
        started(beat)
        eventually(lambda: len(beats) == 6, what="it goes on")
    assert actions(caplog) == ["wait", "resume"]
    assert caplog.records[0].levelname == level
    assert str(error) in caplog.records[0].getMessage()


def test_given_a_long_pause_when_stopped_then_it_ends_at_once(started: Make) -> None:
    beaten = threading.Event()

    def beat() -> float:
        beaten.set()
        return 3600.0

    pulse = started(beat)
    assert beaten.wait(10)
    pulse.stop(timeout=10)
    assert "duty" not in {thread.name for thread in threading.enumerate()}


def test_given_a_duty_that_never_started_when_stopped_then_nothing_happens() -> None:
    Pulse("duty", lambda: 0.0).stop()
