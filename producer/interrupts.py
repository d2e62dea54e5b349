"""Ctrl-C and SIGTERM, twice: the first time they interrupt, the second time they hurry."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A signal has ended this; shells expect 128 and its number as the exit code."""

    #: Whether the last line says already what has ended and how to continue.
    reported = False

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


def reported(error: KeyboardInterrupt) -> Interrupted:
    """The same interrupt, after which the command line prints nothing more."""
    interrupt = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
    interrupt.reported = True
    return interrupt


@contextmanager
def first_interrupts(*, then: Callable[[], None]) -> Iterator[None]:
    """Meanwhile the first SIGINT or SIGTERM raises Interrupted, and every later one calls `then`.

    So that a second Ctrl-C can't cut the clean-up after the first one short, wherever it lands.
    """
    interrupted = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            then()
        else:
            interrupted = True
            raise Interrupted(number)

    with ExitStack() as before:
        for number in (signal.SIGINT, signal.SIGTERM):
            before.callback(signal.signal, number, signal.signal(number, handle))
        yield
