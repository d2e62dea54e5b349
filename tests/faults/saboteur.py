"""A worker or a producer that breaks at a chosen moment, by its own hand.

    SABOTAGE=flushing:after:2 python -m tests.faults.saboteur     a worker; SIGKILL by default
    SABOTAGE_SIGNAL=SIGSTOP                                       another signal
    SABOTAGE_CLOCK=3600                                           a clock that is an hour ahead

A signal from outside comes at whatever moment; this one comes at the moment that is meant: before
or after the n-th call of a function. What is sabotaged is the real program, and no hook in it.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

#: Moment -> the function that is called then. All but those that say so lie inside of a
#: transaction: "after" is before its commit.
MOMENTS = {
    "claiming": "db.queries.chunks:claim",
    "claimed": "worker.mill:Mill._generate",  # the claim is committed, nothing generated
    "generating": "worker.mill:Mill._persist",  # an answer comes, outside of any transaction
    "asking again": "worker.asking:_Asking._submit",  # an answer did not do, outside of any, too
    "flushing": "db.queries.outcomes:record",
    "finishing": "db.queries.chunks:finish",
    "settling": "db.queries.outcomes:settle",
    "flushed": "worker.flusher:Flusher._write",  # around the transaction
    "acknowledging": "worker.transport:QoS.ack",  # around Redis' own
    "beating": "db.queries.chunks:renew",
    "releasing": "db.queries.chunks:release",
    "recovering": "db.queries.recovery:lose",
    "filling": "db.queries.jobs:insert_slice",
    "activating": "db.queries.batches:activate",
    "ringing": "producer.submission.submit:send_messages",  # around it: the batch is committed
    "sending": "db.queries.chunks:take_unsent",
}


def arm() -> None:
    """Prepare what the environment asks for."""
    if ahead := float(os.environ.get("SABOTAGE_CLOCK", 0)):
        _shift_clock(ahead)  # first: others take the function by its name
    if plan := os.environ.get("SABOTAGE"):
        moment, side, count = plan.split(":")
        number = signal.Signals[os.environ.get("SABOTAGE_SIGNAL", "SIGKILL")]
        _trap(MOMENTS[moment], side, int(count), number)


def _shift_clock(ahead: float) -> None:
    honest = time.time
    time.time = lambda: honest() + ahead


def _trap(place: str, side: str, count: int, number: signal.Signals) -> None:
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    setattr(owner, name, _trapped(getattr(owner, name), side, count, number))


def _trapped(
    function: Callable[..., Any], side: str, count: int, number: signal.Signals
) -> Callable[..., Any]:
    calls, lock = 0, threading.Lock()

    def trapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        with lock:
            calls += 1
            due = calls == count
        if due and side == "before":
            os.kill(os.getpid(), number)
        found = function(*args, **kwargs)
        if due and side == "after":
            os.kill(os.getpid(), number)
        return found

    return trapped


if __name__ == "__main__":
    arm()
    from worker.__main__ import main

    sys.exit(main())
