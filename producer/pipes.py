"""Standard output whose reader leaves early, as `| head` does: the end of the work, no failure."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager

_STDOUT = 1


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """End what is inside, quietly, once nobody reads standard output any more."""
    try:
        yield
    except BrokenPipeError:
        if not reader_has_left():
            raise
        silence_stdout()


def reader_has_left() -> bool:
    """Whether standard output is a pipe or socket without a reader."""
    poll = select.poll()
    try:
        poll.register(_STDOUT, 0)
        return any(events & select.POLLERR for _, events in poll.poll(0))
    except OSError:
        return False


def silence_stdout() -> None:
    """Send what is still to come, and what waits in buffers, to the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, _STDOUT)
    os.close(null)
