"""One call at a time, beside the caller's own work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """A thread for calls that mostly wait for a database."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="background")
        self._last: Future[None] | None = None
        #: Set once the caller gives up: a call that waits for a service ends soon.
        self.abandoned = threading.Event()

    def run(self, call: Callable[[], None]) -> None:
        """Begin it, after the one before has ended. Raises what that one raised."""
        self.wait()
        self._last = self._pool.submit(call)

    def wait(self) -> None:
        """Until nothing runs. Raises what the last call raised."""
        if self._last is not None:
            self._last.result()

    def abandon(self) -> None:
        """Until nothing runs, and nothing more can; whatever comes of it."""
        self.abandoned.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
