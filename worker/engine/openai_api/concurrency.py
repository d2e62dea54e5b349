"""How many requests may be on the wire at once. Pure: times are given, nothing is waited for.

Additive increase, multiplicative decrease, as TCP does it (RFC 5681): the window doubles per
round trip until the endpoint first says that it is too much, then grows by one per round trip;
at every overload it halves. Overloads of requests that were sent before the last halving tell
nothing new: the window falls once per round trip, not once per refusal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

#: What an engine begins with.
_FIRST = 8.0


@dataclass(frozen=True, slots=True)
class Window:
    """Immutable; what happens makes the next one."""

    #: Requests on the wire, at most; its whole part counts.
    limit: float
    ceiling: int
    #: Below it every success adds one, above it a whole round of successes does.
    threshold: float
    #: When it last fell (seconds, any clock).
    fell_at: float = float("-inf")

    @classmethod
    def new(cls, ceiling: int) -> Window:
        return cls(limit=min(_FIRST, ceiling), ceiling=ceiling, threshold=ceiling)

    @property
    def size(self) -> int:
        """1 or more."""
        return int(self.limit)

    def succeeded(self, on_wire: int) -> Window:
        """A request got its reply; `on_wire` counts it. An unused window does not grow."""
        if on_wire < self.size:
            return self
        step = 1.0 if self.limit < self.threshold else 1.0 / self.limit
        return replace(self, limit=min(self.limit + step, float(self.ceiling)))

    def overloaded(self, sent_at: float, now: float) -> Window:
        """The endpoint had too much when it got what was sent at `sent_at`."""
        if sent_at < self.fell_at:
            return self
        half = max(1.0, self.limit / 2)
        return replace(self, limit=half, threshold=half, fell_at=now)
