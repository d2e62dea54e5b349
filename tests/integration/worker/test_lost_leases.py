"""Chunks whose worker fell silent are found again, and one that kills its worker is parked."""

from __future__ import annotations

import logging

import pytest

from db.database import Database
from db.queries import chunks, jobs, outcomes, steering
from db.records import Batch, Job
from db.states import BatchState, JobState
from tests.support.crowd import at_once
from tests.support.invariants import Snapshot
from tests.support.stored import (
    QUEUE,
    a_batch,
    a_claim,
    a_worker,
    batch_now,
    chunk_states,
    claims,
    expire,
    succeeded,
)
from worker.recovery import cancels, leases


def recover(database: Database, max_attempts: int = 3) -> int:
    with database.write() as connection:
        return leases.run(connection, max_attempts=max_attempts)


def lose_all(database: Database, worker: int) -> list[list[int]]:
    """A worker claims whatever waits and dies of it; the lines that it had, a list a chunk."""
    held = claims(database, worker)
    for claim in held:
        expire(database, claim.chunk)
    return [[job.line for job in claim.jobs] for claim in held]


def job(database: Database, batch: Batch, line: int) -> Job:
    with database.read() as connection:
        return jobs.get_job(connection, batch.id, line)


@pytest.fixture
def worker(database: Database) -> int:
    return a_worker(database)


def test_given_live_leases_when_recovering_then_nothing_changes(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 4, chunk_size=2)
    claims(database, worker)
    assert recover(database) == 0
    assert chunk_states(database, batch.key) == ["running", "running"]


def test_given_a_lost_worker_when_recovering_then_its_chunk_waits_again_with_an_attempt_spent(
    database: Database, worker: int, caplog: pytest.LogCaptureFixture
) -> None:
    batch = a_batch(database, 4)
    claim = a_claim(database, worker)
    assert claim is not None
    with database.write() as connection:
        outcomes.record(connection, [succeeded(claim, 1)], worker=worker)
    expire(database, claim.chunk)
    with caplog.at_level(logging.WARNING):
        assert recover(database) == 1
    assert "3 unfinished jobs" in caplog.text
    assert chunk_states(database, batch.key) == ["queued"]
    assert [job(database, batch, line).attempts for line in (1, 2, 3, 4)] == [1, 1, 1, 1]
    assert job(database, batch, 2).error_code == "worker_lost"
    with database.write() as connection:
        assert chunks.take_unsent(connection, 10) == [(claim.chunk, QUEUE, 5)]
        assert not chunks.finish(connection, {claim.chunk: claim.token})
        assert outcomes.record(connection, [succeeded(claim, 2)], worker=worker) == 0


def test_given_a_prompt_that_kills_its_worker_when_recovering_then_it_is_parked_alone(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 4)
    assert lose_all(database, worker) == [[1, 2, 3, 4]]
    recover(database)
    # Lost twice: from now on each job runs alone.
    assert lose_all(database, worker) == [[1, 2, 3, 4]]
    recover(database)
    alone = claims(database, worker)
    assert [[one.line for one in claim.jobs] for claim in alone] == [[1], [2], [3], [4]]
    for claim in alone:
        if claim.jobs[0].line == 3:
            expire(database, claim.chunk)
            continue
        with database.write() as connection:
            outcomes.record(connection, [succeeded(claim, claim.jobs[0].line)], worker=worker)
            chunks.finish(connection, {claim.chunk: claim.token})
            outcomes.settle(connection, [claim.batch])
    assert batch_now(database, batch).state == BatchState.IN_PROGRESS
    recover(database)
    parked = job(database, batch, 3)
    assert (parked.state, parked.attempts, parked.error_code) == (
        JobState.FAILED,
        3,
        "worker_lost",
    )
    assert parked.error_message == (
        "the worker that ran it fell silent (killed, out of memory, or cut off), 3 times"
    )
    now = batch_now(database, batch)
    assert (now.state, now.succeeded, now.failed) == (BatchState.COMPLETED, 3, 1)
    assert a_claim(database, worker) is None
    Snapshot.of(database).check()


def test_given_one_attempt_when_the_worker_is_lost_then_the_batch_still_ends(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 2)
    lose_all(database, worker)
    recover(database, max_attempts=1)
    now = batch_now(database, batch)
    assert (now.state, now.failed) == (BatchState.COMPLETED, 2)
    assert chunk_states(database, batch.key) == ["done"]


def test_given_a_chunk_whose_jobs_were_all_written_when_its_worker_is_lost_then_none_pays(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 8, chunk_size=4)
    claim = a_claim(database, worker)
    assert claim is not None
    with database.write() as connection:
        made = [succeeded(claim, one.line) for one in claim.jobs]
        outcomes.record(connection, made, worker=worker)
    expire(database, claim.chunk)
    recover(database)
    assert chunk_states(database, batch.key) == ["done", "queued"]
    assert batch_now(database, batch).succeeded == 4


def test_given_a_lost_chunk_of_a_cancelling_batch_when_recovering_then_the_cancel_ends_right(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 4, chunk_size=2)
    lose_all(database, worker)
    with database.write() as connection:
        steering.begin_cancel(connection, batch.id)
    recover(database, max_attempts=1)
    assert cancels.run(database) == 1
    now = batch_now(database, batch)
    assert (now.state, now.failed, now.cancelled) == (BatchState.CANCELLED, 4, 0)
    Snapshot.of(database).check()


def test_given_many_recoveries_at_once_when_leases_expire_then_each_is_charged_once(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 40, chunk_size=2)
    lose_all(database, worker)
    assert sum(at_once([lambda: recover(database)] * 4)) == 20
    assert {row.attempts for row in Snapshot.of(database).jobs} == {1}
    assert chunk_states(database, batch.key) == ["queued"] * 20
