"""The rate that a worker reports: of the time in which its engine computes."""

from __future__ import annotations

from worker.heartbeat import TokenRate


def test_rate_is_taken_over_the_last_heartbeats() -> None:
    rate = TokenRate()
    for second in range(0, 40, 2):
        rate.add(second, second * (10 if second < 20 else 30), running=4)
    assert rate.per_second == 30


def test_rate_after_an_idle_time_is_not_thinned_by_it() -> None:
    rate = TokenRate()
    for second in range(0, 20, 2):
        rate.add(second, 0, running=0)
    assert rate.per_second == 0
    rate.add(20, 200, running=4)
    assert rate.per_second == 100


def test_rate_of_an_engine_that_has_become_idle_is_none() -> None:
    rate = TokenRate()
    rate.add(0, 0, running=0)
    rate.add(2, 200, running=4)
    rate.add(4, 300, running=0)
    assert rate.per_second == 75
    rate.add(6, 300, running=0)
    assert rate.per_second == 0


def test_rate_of_an_engine_that_computes_long_without_a_token_falls() -> None:
    rate = TokenRate()
    for second, tokens in ((0, 0), (2, 100), (4, 100), (6, 100)):
        rate.add(second, tokens, running=4)
    assert 0 < rate.per_second < 20
