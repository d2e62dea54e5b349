"""Which request is sent next, and when. Pure: times are given, nothing is waited for.

    window    how many are on the wire (concurrency.py)
    rates     how many, and how many tokens, in a minute (rates.py)
    pause     after an overload nobody sends for a while: as long as the endpoint says, else
              0.5, 1, 2, … 60 seconds, until something succeeds again
    turn      who came first is sent first; a retry keeps its place

During a long storm one request after the other probes, so that few of them spend their
retries on it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from worker.engine.openai_api.concurrency import Window
from worker.engine.openai_api.rates import SlidingLimit, Taken
from worker.engine.openai_api.troubles import Trouble

Item = TypeVar("Item")

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0


@dataclass(slots=True, eq=False)
class Ticket(Generic[Item]):
    """One request's place in the line."""

    item: Item
    #: Tokens that a try may cost.
    tokens: float
    #: Order of arrival; set by the line.
    serial: int = -1
    #: Tries that failed.
    failures: int = 0
    sent_at: float = 0.0
    #: Nobody wants it any more.
    dropped: bool = False
    taken: Taken | None = field(default=None, repr=False)


class Schedule(Generic[Item]):
    """Not thread-safe: it belongs to one loop."""

    def __init__(
        self,
        window: Window,
        *,
        rpm: float,
        tpm: float,
        max_retries: int,
        jitter: Callable[[], float] = lambda: 1.0,
    ) -> None:
        """`jitter` gives the share of a pause that is kept, so that not everybody comes back at
        once.
        """
        self.window = window
        self.on_wire = 0
        self._requests = SlidingLimit(rpm)
        self._tokens = SlidingLimit(tpm)
        self._max_retries = max_retries
        self._jitter = jitter
        self._serial = 0
        self._ready: list[tuple[int, Ticket[Item]]] = []
        self._later: list[tuple[float, int, Ticket[Item]]] = []
        self._paused_until = float("-inf")
        self._paused_at = float("-inf")
        self._overloads = 0

    def add(self, ticket: Ticket[Item]) -> None:
        """At the end of the line; at its old place if it had one."""
        if ticket.serial < 0:
            ticket.serial = self._serial
            self._serial += 1
        heapq.heappush(self._ready, (ticket.serial, ticket))

    def next(self, now: float) -> Ticket[Item] | None:
        """The next one, which counts as sent; None: nobody may be sent now."""
        while self._later and self._later[0][0] <= now:
            self.add(heapq.heappop(self._later)[2])
        while self._ready and self._ready[0][1].dropped:
            heapq.heappop(self._ready)
        if not self._ready or self.on_wire >= self.window.size:
            return None
        ticket = self._ready[0][1]
        if self._held(now, ticket) > 0:
            return None
        heapq.heappop(self._ready)
        self._requests.take(now, 1)
        ticket.taken = self._tokens.take(now, ticket.tokens)
        ticket.sent_at = now
        self.on_wire += 1
        return ticket

    def wake_in(self, now: float) -> float | None:
        """Seconds until `next` may give one; None: not before something changes."""
        waits = [self._later[0][0] - now] if self._later else []
        if self._ready and self.on_wire < self.window.size:
            waits.append(self._held(now, self._ready[0][1]))
        return max(0.0, min(waits)) if waits else None

    def succeeded(self, ticket: Ticket[Item], tokens: float, now: float) -> None:
        """It has its reply, which cost so many tokens; 0: not known."""
        self.window = self.window.succeeded(self.on_wire)
        self._overloads = 0
        self.on_wire -= 1
        if tokens and ticket.taken is not None:
            self._tokens.correct(ticket.taken, tokens, now)

    def failed(self, ticket: Ticket[Item], trouble: Trouble, now: float) -> bool:
        """It has none; whether it is in the line again."""
        self.on_wire -= 1
        ticket.failures += 1
        if trouble.overload:
            self.window = self.window.overloaded(ticket.sent_at, now)
        if trouble.everybody:
            self._pause(ticket, trouble.wait, now)
        if not trouble.failure.retriable or ticket.failures > self._max_retries:
            return False
        if trouble.everybody:
            self.add(ticket)
        else:
            alone = self._backoff(ticket.failures) if trouble.wait is None else trouble.wait
            heapq.heappush(self._later, (now + alone, ticket.serial, ticket))
        return True

    def abandoned(self) -> None:
        """Something on the wire was cancelled: it tells nothing."""
        self.on_wire -= 1

    def _held(self, now: float, ticket: Ticket[Item]) -> float:
        """Seconds that pause and rates keep it back."""
        return max(
            self._paused_until - now,
            self._requests.wait(now, 1),
            self._tokens.wait(now, ticket.tokens),
        )

    def _pause(self, ticket: Ticket[Item], wait: float | None, now: float) -> None:
        if wait is not None:
            self._paused_until = max(self._paused_until, now + wait)
            self._paused_at = now
        elif ticket.sent_at >= self._paused_at:
            # What was sent before the pause began tells nothing new.
            self._overloads += 1
            self._paused_until = max(self._paused_until, now + self._backoff(self._overloads))
            self._paused_at = now

    def _backoff(self, times: int) -> float:
        """Seconds: 0.5, 1, 2, … 60."""
        longest: float = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(times - 1, 10))
        return longest * self._jitter()
