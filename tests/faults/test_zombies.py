"""Workers that stand still past their lease and go on, and workers whose clock is wrong.

On PostgreSQL: one that stands still while it writes to SQLite holds the lock of the whole file.
"""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from tests.acceptance.mill import Mill, echoing, pid_of
from tests.faults.proof import BUSY, SABOTEUR, attempts, begun, proven, queued, some
from tests.support.processes import WorkerProcess, eventually


def _stopped(worker: WorkerProcess) -> bool:
    """Whether it stands still (as /proc tells, or as ps does where there is none)."""
    import psutil

    return bool(psutil.Process(worker.process.pid).status() == psutil.STATUS_STOPPED)


@pytest.mark.parametrize(
    "moment",
    some(
        ["flushed:before:2"],
        [
            "claimed:before:2",
            "claimed:after:2",
            "generating:before:20",
            "generating:after:50",
            "flushed:after:2",
            "flushed:before:5",
        ],
    ),
)
def test_given_a_worker_when_it_stands_still_past_its_lease_then_what_it_writes_late_is_refused(
    mill: Mill, moment: str
) -> None:
    mill.env["PROMPTMILL_LEASE"] = "10"  # longer than a silent client keeps its locks
    batch = queued(mill)
    zombie = mill.start_worker(BUSY, module=SABOTEUR, SABOTAGE=moment, SABOTAGE_SIGNAL="SIGSTOP")
    eventually(lambda: _stopped(zombie), what="it stands still")
    other = mill.worker()
    proven(mill, batch)
    before = Counter(pid_of(one.worker) for one in mill.client.results(batch))
    assert str(other.process.pid) in before

    zombie.signal(signal.SIGCONT)

    # It lives, lets go of what is not its own any more, and works like any other.
    other.signal(signal.SIGTERM)
    assert other.ended(30) == 0
    next_batch = queued(mill, 20)
    proven(mill, next_batch, 20)
    proven(mill, batch)
    assert Counter(pid_of(one.worker) for one in mill.client.results(batch)) == before
    assert attempts(mill, batch) <= {1, 2}


def test_given_a_worker_when_it_stands_still_in_a_transaction_then_its_locks_hold_nobody_for_ever(
    mill: Mill,
) -> None:
    """As if its host had lost power: the connection stays, and nobody hears of its end."""
    mill.env["PROMPTMILL_LEASE"] = "10"
    batch = queued(mill)
    zombie = mill.start_worker(
        BUSY, module=SABOTEUR, SABOTAGE="flushing:after:2", SABOTAGE_SIGNAL="SIGSTOP"
    )
    eventually(lambda: _stopped(zombie), what="it stands still")
    mill.worker()
    proven(mill, batch)
    zombie.signal(signal.SIGCONT)
    proven(mill, batch)
    assert attempts(mill, batch) <= {1, 2}  # whoever waited for the locks has lost no lease


@pytest.mark.parametrize("ahead", some(["3600"], ["-3600"]))
def test_given_a_worker_whose_clock_is_an_hour_off_when_it_works_beside_others_then_all_is_right(
    either: Mill, ahead: str
) -> None:
    """It neither takes chunks from the living nor keeps those of its own for too long."""
    slow = echoing(latency=0.2, capacity=5)
    off = either.start_worker(slow, module=SABOTEUR, SABOTAGE_CLOCK=ahead)
    right = either.start_worker(slow)
    off.ready(), right.ready()
    batch = queued(either)
    begun(either, batch)
    proven(either, batch)
    assert attempts(either, batch) == {1}
    assert set(either.shares(batch)) == {str(off.process.pid), str(right.process.pid)}
    for one in either.client.results(batch):
        assert one.started_at is not None
        assert one.finished_at is not None
        assert 0 <= one.finished_at - one.started_at < 60

    # And it is missed when it dies, at once, though it had thought that it was another hour
    last = queued(either, 60)
    eventually(lambda: either.client.batch(last).done > 10, what="in its middle")
    off.kill()
    proven(either, last, 60)
