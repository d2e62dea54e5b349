"""A process that ends with its parent, however that dies."""

from __future__ import annotations

import os
import signal
import sys
import threading


def leave_with_parent() -> None:
    """From now on, take SIGTERM when standard input ends.

    A parent holds it open, and the kernel closes it for the dead.
    """
    threading.Thread(target=_leave, daemon=True).start()


def _leave() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
