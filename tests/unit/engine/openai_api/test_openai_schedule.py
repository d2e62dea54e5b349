from __future__ import annotations

from worker.engine.openai_api import troubles
from worker.engine.openai_api.concurrency import Window
from worker.engine.openai_api.schedule import Schedule, Ticket

INFINITE = float("inf")


def _schedule(
    *names: str, rpm: float = INFINITE, tpm: float = INFINITE, ceiling: int = 64, retries: int = 2
) -> Schedule[str]:
    schedule: Schedule[str] = Schedule(Window.new(ceiling), rpm=rpm, tpm=tpm, max_retries=retries)
    for name in names:
        schedule.add(Ticket(name, 10))
    return schedule


def _sent(schedule: Schedule[str], now: float) -> list[Ticket[str]]:
    sent = []
    while (ticket := schedule.next(now)) is not None:
        sent.append(ticket)
    return sent


def _names(tickets: list[Ticket[str]]) -> str:
    return "".join(ticket.item for ticket in tickets)


def test_given_a_line_when_sent_then_the_first_go_first_and_the_window_bounds_them() -> None:
    schedule = _schedule(*"abcd", ceiling=2)
    sent = _sent(schedule, 0)
    assert _names(sent) == "ab"
    assert schedule.wake_in(0) is None
    schedule.succeeded(sent[0], 0, 1)
    assert _names(_sent(schedule, 1)) == "c"


def test_given_rates_when_they_are_spent_then_it_says_how_long_to_wait() -> None:
    schedule = _schedule(*"abc", rpm=2)
    assert _names(_sent(schedule, 0)) == "ab"
    assert schedule.wake_in(1) == 59
    assert _names(_sent(schedule, 60)) == "c"


def test_given_tokens_a_minute_when_a_reply_cost_less_then_the_next_goes_earlier() -> None:
    schedule = _schedule(*"abc", tpm=25)
    first, _ = _sent(schedule, 0)
    assert schedule.wake_in(0) == 60
    schedule.succeeded(first, 2, 1)
    assert _names(_sent(schedule, 1)) == "c"


def test_given_a_retry_after_when_it_comes_then_nobody_sends_until_then() -> None:
    schedule = _schedule(*"abc", ceiling=2)
    first, _ = _sent(schedule, 0)
    busy = troubles.of_status(429, {"retry-after": "30"}, "", 0)
    assert schedule.failed(first, busy, 1)
    assert schedule.window.size == 1
    assert _sent(schedule, 31) == []  # the other one is still on the wire, and fills the window
    schedule.abandoned()
    assert schedule.wake_in(1) == 30
    assert _sent(schedule, 30.9) == []
    assert _names(_sent(schedule, 31)) == "a"  # a retry keeps its place


def test_given_a_storm_without_advice_when_it_goes_on_then_the_pauses_double() -> None:
    schedule = _schedule("a", retries=100)
    now, pauses = 0.0, []
    for _ in range(10):
        (ticket,) = _sent(schedule, now)
        assert schedule.failed(ticket, troubles.of_status(429, {}, "", 0), now)
        pause = schedule.wake_in(now)
        assert pause is not None
        pauses.append(pause)
        now += pause
    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    (ticket,) = _sent(schedule, now)
    schedule.succeeded(ticket, 0, now)
    schedule.add(Ticket("b", 1))
    (ticket,) = _sent(schedule, now)
    schedule.failed(ticket, troubles.of_status(429, {}, "", 0), now)
    assert schedule.wake_in(now) == 0.5


def test_given_refusals_of_one_round_when_they_come_together_then_the_pause_grows_once() -> None:
    schedule = _schedule(*"abcdefgh")
    for number, ticket in enumerate(_sent(schedule, 0)):
        schedule.failed(ticket, troubles.of_status(503, {}, "", 0), 1 + number / 100)
    assert schedule.wake_in(1.07) == 1.5 - 1.07
    assert schedule.window.size == 4


def test_given_trouble_of_its_own_when_a_request_waits_then_the_others_go_on() -> None:
    schedule = _schedule("a", "b", ceiling=1)
    (first,) = _sent(schedule, 0)
    assert schedule.failed(first, troubles.garbled("what?"), 0)
    assert _names(_sent(schedule, 0)) == "b"
    schedule.abandoned()
    assert schedule.wake_in(0) == 0.5
    assert _names(_sent(schedule, 0.5)) == "a"


def test_given_spent_retries_when_it_fails_again_then_it_is_out() -> None:
    schedule = _schedule("a", retries=2)
    again = []
    for now in (0, 100, 200):
        (ticket,) = _sent(schedule, now)
        again.append(schedule.failed(ticket, troubles.timed_out(1), now))
    assert again == [True, True, False]
    assert schedule.wake_in(1000) is None


def test_given_what_no_repeat_mends_when_it_fails_then_it_is_out_at_once() -> None:
    schedule = _schedule("a")
    (ticket,) = _sent(schedule, 0)
    assert not schedule.failed(ticket, troubles.of_status(401, {}, "", 0), 0)


def test_given_a_ticket_that_nobody_wants_when_its_turn_comes_then_the_next_goes() -> None:
    schedule = _schedule("a", "b", ceiling=1)
    (first,) = _sent(schedule, 0)
    schedule.failed(first, troubles.garbled("what?"), 0)
    first.dropped = True
    assert _names(_sent(schedule, 10)) == "b"
    assert schedule.on_wire == 1
