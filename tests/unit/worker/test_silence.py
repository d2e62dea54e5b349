"""Leases are not judged right after the database was away."""

from __future__ import annotations

from db.settings import Settings
from worker.recovery.rounds import Silence


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_given_a_database_that_was_away_when_it_answers_then_live_workers_may_speak_first() -> None:
    clock = Clock()
    silence = Silence(Settings(lease=30, recovery_interval=5), clock)
    assert not silence.ends_now()
    for _ in range(3):
        clock.now += 5
        silence.ends_now()
    assert not silence.ends_now()
    clock.now += 60
    assert silence.ends_now()
    clock.now += 2  # a heartbeat is due every 2 s, and a failed one is tried again after 2 s
    assert silence.ends_now()
    clock.now += 5
    assert not silence.ends_now()


def test_given_rounds_that_come_as_they_should_when_looked_at_then_there_is_no_silence() -> None:
    clock = Clock()
    silence = Silence(Settings(lease=30, recovery_interval=5), clock)
    heard = []
    for _ in range(20):
        clock.now += 6
        heard.append(silence.ends_now())
    assert not any(heard)
