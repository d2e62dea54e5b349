"""Wait while the database is away, instead of giving up what runs for hours."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from db.errors import DatabaseUnavailable, DatabaseUnwritable

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds that a producer waits for a database that is away.
PATIENCE = 300.0
#: Seconds between two tries: first, and at most.
_FIRST, _LONGEST = 0.5, 5.0


def patiently(call: Callable[[], T], *, patience: float = PATIENCE) -> T:
    """What `call` returns, once the database lets it; it must bear to be called again.

    Says once that it waits, and once that it goes on. Raises DatabaseUnavailable after
    `patience` seconds, and DatabaseUnwritable at once: a full disk needs somebody to free it.
    """
    deadline, pause, told = time.monotonic() + patience, _FIRST, False
    while True:
        try:
            result = call()
        except DatabaseUnwritable:
            raise
        except DatabaseUnavailable as error:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            if not told:
                logger.warning("%s; waiting for it, for up to %.0f s", error.message, left)
                told = True
            time.sleep(min(pause, left))
            pause = min(_LONGEST, pause * 2)
        else:
            if told:
                logger.warning("the database is back")
            return result
