"""A step of continuous batching broke: which of its sequences is to blame.

They run again in halves, each half alone until each of its sequences has one token more. So what
is to blame fails by itself, and the others lose nothing: their texts go on from the tokens that
they have. What else waits is held back meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from worker.engine.shared.continuation import Continuation
from worker.engine.shared.halving import Halving


class Isolation:
    """The search for whoever broke a step."""

    def __init__(self, suspects: Sequence[Continuation], held: Iterable[Continuation]) -> None:
        """`suspects` have just failed together; `held`: what else the manager had."""
        self._halving = Halving(suspects)
        self._held = list(held)
        self._lengths: dict[str, int] = {}

    def hold(self, continuation: Continuation) -> None:
        """It waits until the search is over."""
        self._held.append(continuation)

    def fail(self) -> Sequence[Continuation]:
        """The group broke its step. Those who are to blame for it."""
        return self._halving.fail()

    def next_group(self) -> list[Continuation]:
        """Who runs now; nobody: the search is over."""
        while group := self._halving.group:
            live = [one for one in group if not one.done]
            if live:
                self._lengths = {one.id: len(one.token_ids) for one in live}
                return live
            self._halving.succeed()
        return []

    def has_passed(self) -> bool:
        """Whether each of the group has a token more, or has ended."""
        return all(
            one.done or len(one.token_ids) > self._lengths.get(one.id, 0)
            for one in self._halving.group
        )

    def succeed(self) -> None:
        """The group has passed."""
        self._halving.succeed()

    def released(self) -> list[Continuation]:
        """What goes on once the search is over, in the order in which it came."""
        return [one for one in (*self._halving.passed, *self._held) if not one.done]
