"""Who may compute with the model now: one at a time, in the order in which they came."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class Turns:
    """A lock that is fair: a loop that takes it anew at once lets those who wait go first.

    Generating and measuring share one model, and each changes it for its time: the attention that
    it goes through, the modules that a pass skips.
    """

    def __init__(self) -> None:
        #: Held by whoever is next; the others wait for it.
        self._next = Lock()
        self._model = Lock()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for the model and have it until the end of the block. Not to be nested."""
        with self._next:
            self._model.acquire()
        try:
            yield
        finally:
            self._model.release()
