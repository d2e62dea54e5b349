"""At most so much in any 60 seconds. Pure: times are given, nothing is waited for.

A log of what was taken in the last minute, and not a bucket that refills: a full bucket lets
through twice its size in its first minute, which an endpoint that counts strictly refuses.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_MINUTE = 60.0


@dataclass(slots=True, eq=False)
class Taken:
    """What one request took; `SlidingLimit.correct` mends it once the truth is known."""

    at: float
    amount: float


class SlidingLimit:
    """A limit a minute; infinite: there is none."""

    def __init__(self, per_minute: float) -> None:
        self._limit = per_minute
        self._log: deque[Taken] = deque()
        self._sum = 0.0

    def wait(self, now: float, amount: float) -> float:
        """Seconds until `amount` may be taken; 0: at once.

        More than the whole limit may be taken only after a minute in which nothing was.
        """
        self._forget(now)
        over = self._sum + amount - self._limit
        if over <= 0 or not self._log:
            return 0.0
        last = self._log[-1]
        for taken in self._log:
            over -= taken.amount
            if over <= 0:
                last = taken
                break
        return last.at + _MINUTE - now

    def take(self, now: float, amount: float) -> Taken:
        taken = Taken(now, amount)
        if self._limit != float("inf"):
            self._log.append(taken)
            self._sum += amount
        return taken

    def correct(self, taken: Taken, amount: float, now: float) -> None:
        """It was `amount` in truth; of no account once it is out of the minute."""
        self._forget(now)
        if taken.at + _MINUTE > now:
            self._sum += amount - taken.amount
            taken.amount = amount

    def _forget(self, now: float) -> None:
        while self._log and self._log[0].at + _MINUTE <= now:
            self._sum -= self._log.popleft().amount
