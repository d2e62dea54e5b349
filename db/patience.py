"""Wait while the database or Redis is away, instead of giving up what runs for hours."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from db.errors import PromptmillError

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between two tries: first, and at most.
_FIRST, _LONGEST = 0.5, 5.0


def patiently(call: Callable[[], T], patience: float, stop: threading.Event | None = None) -> T:
    """What `call` returns, once the services let it; it must bear to be called again.

    Says once that it waits, and once that it goes on. Raises what `call` does: after `patience`
    seconds what may pass, and the rest, such as a wrong password or a full disk, at once. Once
    `stop` is set nothing is waited for.
    """
    stop = stop or threading.Event()
    deadline, pause, told = time.monotonic() + patience, _FIRST, False
    while True:
        try:
            result = call()
        except PromptmillError as error:
            left = deadline - time.monotonic()
            if not error.passing or left <= 0 or stop.is_set():
                raise
            if not told:
                logger.warning("%s; waiting for it, for up to %.0f s", error.message, left)
                told = True
            stop.wait(min(pause, left))
            pause = min(_LONGEST, pause * 2)
        else:
            if told:
                logger.warning("it is back: going on")
            return result
