"""Computing in a thread that ends, so that the thread which generates has the processor.

torch keeps a team of OpenMP threads for every thread that ever computed in parallel. GNU's OpenMP
lets a team wait by spinning only while all teams together fit the processors; with one team more,
every parallel loop wakes its team through the kernel, and one step of a model has hundreds of
loops. A thread that ends takes its team with it. On two cores this makes generation a
quarter faster (benchmarks/overhead.py).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def apart(call: Callable[[], T]) -> T:
    """What `call` returns or raises, computed in a thread of its own."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001 - the caller's to handle, whatever it is
            answer.set_exception(error)

    # A daemon: a signal that ends the process need not wait until a model is loaded.
    thread = Thread(target=run, name="promptmill-apart", daemon=True)
    thread.start()
    thread.join()
    return answer.result()
