"""Who breaks what several run together: they are run again in halves, level by level. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

#: So many fail alone and no group has passed: it is not they who break it.
_HOPELESS = 4


class Halving(Generic[T]):
    """The groups that are still to be run, each by itself.

    One culprit among n is found in 2·log2(n) runs at most, of which log2(n) fail.
    """

    def __init__(self, suspects: Sequence[T]) -> None:
        """`suspects` have just failed together."""
        self.passed: list[T] = []
        self._culprits = 0
        self._groups: deque[Sequence[T]] = deque([suspects])

    @property
    def group(self) -> Sequence[T]:
        """What is run now; empty: everyone has passed or failed."""
        return self._groups[0] if self._groups else ()

    def fail(self) -> Sequence[T]:
        """The group failed. Who is to blame; nobody as long as it can be halved."""
        group = self._groups.popleft()
        if len(group) > 1:
            half = len(group) // 2
            self._groups.extend((group[:half], group[half:]))
            return ()
        self._culprits += len(group)
        if self._culprits < _HOPELESS or self.passed:
            return group
        rest = [one for others in self._groups for one in others]
        self._groups.clear()
        return [*group, *rest]

    def succeed(self) -> None:
        """The group ran."""
        self.passed += self._groups.popleft()
