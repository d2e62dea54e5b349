"""Whoever is killed, at whatever moment: the others finish, every prompt once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from sqlalchemy import Table, func, select, update

from db.schema import batches, jobs
from producer.submission.slices import SLICE
from tests.acceptance.mill import Mill, echoing
from tests.faults.proof import (
    BUSY,
    JOBS,
    LONG,
    SABOTEUR,
    attempts,
    begun,
    killed,
    proven,
    queued,
    some,
)
from tests.support.processes import environment, eventually

#: Moment, side and count; see the saboteur.
_MOMENTS = [
    "claiming:after:2",
    "generating:before:7",
    "flushing:after:2",
    "acknowledging:before:2",
]
_MORE = [
    "claimed:before:2",
    "flushed:after:2",
    "acknowledging:after:2",
    "claiming:before:1",
    "claimed:after:3",
    "generating:after:50",
    "flushing:before:1",
    "flushing:after:10",
    "finishing:after:1",
    "finishing:after:5",
    "settling:after:2",
    "flushed:before:1",
    "flushed:after:10",
    "beating:after:2",
]


@pytest.mark.parametrize("moment", some(_MOMENTS, _MORE))
def test_given_a_worker_when_it_is_killed_at_a_moment_then_another_one_does_the_rest(
    both: Mill, moment: str
) -> None:
    batch = queued(both)
    killed(both.start_worker(BUSY, module=SABOTEUR, SABOTAGE=moment))
    assert not both.client.batch(batch).finished
    both.worker()
    proven(both, batch)
    assert attempts(both, batch) <= {1, 2}


def test_given_a_worker_when_it_is_killed_while_it_recovers_then_the_next_one_does_it_once(
    either: Mill,
) -> None:
    batch = queued(either)
    killed(either.start_worker(BUSY, module=SABOTEUR, SABOTAGE="generating:before:30"))
    killed(either.start_worker(BUSY, module=SABOTEUR, SABOTAGE="recovering:after:1"))
    either.worker()
    proven(either, batch)
    assert attempts(either, batch) <= {1, 2, 3}


def test_given_a_worker_that_drains_when_it_is_killed_then_nothing_is_handed_back_by_halves(
    either: Mill,
) -> None:
    batch = queued(either)
    worker = either.start_worker(
        echoing(latency=1.5, capacity=20),
        module=SABOTEUR,
        SABOTAGE="releasing:after:1",
        PROMPTMILL_GRACE="0",
    )
    begun(either, batch)
    worker.signal(signal.SIGTERM)
    killed(worker)
    either.worker()
    proven(either, batch)


def test_given_three_workers_when_all_are_killed_at_once_then_one_that_comes_later_finishes(
    both: Mill,
) -> None:
    batch = queued(both)
    for _ in range(3 if LONG else 1):
        crowd = [both.start_worker(echoing(latency=0.3, capacity=5)) for _ in range(3)]
        begun(both, batch)
        for worker in crowd:
            worker.signal(signal.SIGKILL)
        for worker in crowd:
            killed(worker)
    both.worker()
    proven(both, batch)


def test_given_workers_when_one_after_another_is_told_to_stop_then_no_attempt_is_spent(
    either: Mill,
) -> None:
    batch = queued(either)
    done = 0
    for _ in range(6 if LONG else 2):
        worker = either.worker(echoing(latency=0.2, capacity=5), PROMPTMILL_GRACE="0")
        found = either.until(batch, lambda now, past=done: now.done > past, "gone on")  # type: ignore[misc]
        done = found.done
        worker.signal(signal.SIGTERM)
        assert worker.ended(30) == 0, worker.said()
    assert not either.client.batch(batch).finished, "the test is too slow for its batch"
    either.worker()
    proven(either, batch)
    assert attempts(either, batch) == {1}


#: More than one slice of jobs.
_MANY = SLICE + 500

_PRODUCER = "from tests.faults.saboteur import arm; arm(); from producer.cli import main; main()"


def _killed_producer(mill: Mill, moment: str, file: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PRODUCER, "submit", file, "--model", mill.model],
        env={**environment(mill.env), "SABOTAGE": moment},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    "moment", some(["activating:after:1"], ["filling:after:1", "filling:after:2"])
)
def test_given_a_producer_when_it_is_killed_while_it_stores_then_nothing_runs_and_all_is_swept(
    both: Mill, moment: str
) -> None:
    _killed_producer(both, moment, both.numbered(_MANY))
    both.worker()
    batch = queued(both)
    proven_alone(both, batch)


def proven_alone(mill: Mill, batch: str) -> None:
    """The batch runs to its end; of the one whose producer died nothing did, nor is left."""
    mill.finished(batch)
    database = mill.client.database
    with database.write() as connection:
        dead = update(batches).where(batches.c.state == "validating")
        connection.execute(dead.values(touched_at=time.time() - 3600))

    def left(table: Table) -> int:
        with database.read() as connection:
            return connection.execute(select(func.count()).select_from(table)).scalar_one()

    # Killed before the first slice was committed, it left a batch without any job.
    eventually(lambda: (left(batches), left(jobs)) == (1, JOBS), what="the remains are swept away")
    proven(mill, batch)
    assert [one.id for one in mill.client.batches()] == [batch]


@pytest.mark.parametrize("moment", some(["sending:after:1"], ["ringing:before:1"]))
def test_given_a_producer_when_it_is_killed_before_it_rings_then_the_batch_runs_all_the_same(
    either: Mill, moment: str
) -> None:
    _killed_producer(either, moment, either.numbered(JOBS))
    (batch,) = either.client.batches()
    either.worker()
    proven(either, batch.id)
    assert attempts(either, batch.id) == {1}
