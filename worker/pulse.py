"""The worker's regular duties, each on a thread of its own: heartbeat, poll, recover.

The heartbeat must not wait behind a long recovery, nor a claim behind either.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from db.errors import PromptmillError

logger = logging.getLogger(__name__)


#: Seconds before a duty that failed is tried again, about.
RETRY = 2.0


class Pulse:
    """Calls `beat` again and again, until stopped; an error is logged once and lived through.

    `beat` returns the seconds until the next call.
    """

    def __init__(self, name: str, beat: Callable[[], float], *, retry: float = RETRY) -> None:
        self._name = name
        self._beat = beat
        self._retry = retry
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _complain(self, error: Exception) -> None:
        known = isinstance(error, PromptmillError)
        logger.log(
            logging.WARNING if known else logging.ERROR,
            "%s waits: %s",
            self._name,
            error,
            exc_info=None if known else error,
            extra={"action": "wait"},
        )

    def _loop(self) -> None:
        complained = False
        pause = 0.0
        while not self._stopping.wait(pause):
            try:
                pause = self._beat()
                if complained:
                    logger.info("%s goes on", self._name, extra={"action": "resume"})
                complained = False
            except Exception as error:  # noqa: BLE001 - without its duties a worker is a zombie
                if not complained:
                    self._complain(error)
                complained = True
                # Many workers that lost one database must not all come back in one instant.
                pause = self._retry * random.uniform(0.75, 1.25)  # noqa: S311
