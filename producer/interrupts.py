"""Ctrl-C, twice: the first time it interrupts, the second time it hurries."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def first_interrupts(*, then: Callable[[], None]) -> Iterator[None]:
    """Meanwhile the first SIGINT raises KeyboardInterrupt, and every later one calls `then`.

    So that a second Ctrl-C can't cut the clean-up after the first one short, wherever it lands.
    """
    interrupted = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            then()
        else:
            interrupted = True
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
