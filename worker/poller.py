"""The poller: an idle worker looks into the database, in case no bell rings.

It makes lost messages harmless (a flushed or restarted Redis), lets an idle worker take chunks
whose messages another one has fetched and has no room for, and works before Redis answers.
"""

from __future__ import annotations

from worker.mill import Mill

#: Seconds without a message before an idle worker looks by itself.
_PATIENCE = 0.5
#: Seconds between two looks: first, and at most.
_FIRST, _LONGEST = 0.25, 2.0


class Poller:
    """Claims without a message while there is room, ever more seldom while nothing waits."""

    def __init__(self, mill: Mill) -> None:
        self._mill = mill
        self._pause = _FIRST

    def poll(self) -> float:
        """Look once, if it is time; the seconds until the next call."""
        if self._mill.draining:
            return _LONGEST
        if not self._mill.await_room(_FIRST):
            return 0.0
        rest = _PATIENCE - self._mill.silent_for
        if rest > 0:
            return rest
        if self._mill.work_on_next():
            self._pause = _FIRST
            return 0.0
        self._pause = min(_LONGEST, self._pause * 2)
        return self._pause
