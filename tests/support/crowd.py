"""Many threads at once, and what they raised."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

T = TypeVar("T")

#: Seconds for all of a crowd: far more than any test needs.
DEADLINE = 60.0


def at_once(calls: Iterable[Callable[[], T]]) -> list[T]:
    """Call all of them at the same moment, a thread each; what they return, or the first error."""
    wanted = list(calls)
    ready = Barrier(len(wanted))

    def run(call: Callable[[], T]) -> T:
        ready.wait(DEADLINE)
        return call()

    with ThreadPoolExecutor(len(wanted)) as pool:
        running = [pool.submit(run, call) for call in wanted]
        return [one.result(DEADLINE) for one in running]
