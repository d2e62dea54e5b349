"""For a process that makes millions of short-lived values, and waits for a database meanwhile."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: New values between two looks of the collector, which finds nothing here: no value knows itself.
_VALUES = 100_000
#: Seconds that a thread computes on while another one, back from its database, waits.
_TURN = 0.0005


@contextmanager
def for_throughput() -> Iterator[None]:
    """Meanwhile the garbage collector looks rarely, and threads take turns often.

    For processes that are promptmill's own: it changes Python's settings for all of it.
    """
    thresholds, turn = gc.get_threshold(), sys.getswitchinterval()
    gc.freeze()
    gc.set_threshold(_VALUES, *thresholds[1:])
    sys.setswitchinterval(_TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(turn)
        gc.set_threshold(*thresholds)
        gc.unfreeze()
