"""Pause, resume, cancel, retry and delete a batch."""

from __future__ import annotations

import pytest

from db.database import Database
from db.errors import ConflictError, NotFoundError
from db.queries import batches, chunks, deletion, jobs, retries, steering
from db.states import BatchState, JobState
from tests.support.invariants import Snapshot
from tests.support.steering import Verb, cancel, drain, retry, steer, write
from tests.support.stored import (
    a_batch,
    a_claim,
    a_worker,
    batch_now,
    chunk_states,
    claims,
)


@pytest.fixture
def worker(database: Database) -> int:
    return a_worker(database)


def test_given_a_running_batch_when_paused_then_nothing_of_it_runs_until_it_is_resumed(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 8, chunk_size=4)
    claim = a_claim(database, worker)
    assert claim is not None
    paused = steer(database, steering.pause, batch)
    assert (paused.state, paused.finished) == (BatchState.PAUSED, False)
    assert chunk_states(database, batch.key) == ["held", "held"]
    assert write(database, claim, worker) == 0
    assert a_claim(database, worker) is None
    assert steer(database, steering.pause, batch).state == BatchState.PAUSED

    assert steer(database, steering.resume, batch).state == BatchState.IN_PROGRESS
    with database.write() as connection:
        assert len(chunks.take_unsent(connection, 10)) == 2
    drain(database, worker)
    assert batch_now(database, batch).state == BatchState.COMPLETED


def test_given_a_batch_that_has_not_begun_when_paused_and_resumed_then_it_is_queued_again(
    database: Database,
) -> None:
    batch = a_batch(database, 4)
    steer(database, steering.pause, batch)
    assert steer(database, steering.resume, batch).state == BatchState.QUEUED
    assert steer(database, steering.resume, batch).state == BatchState.QUEUED


def test_given_a_paused_batch_when_cancelled_then_it_ends(database: Database) -> None:
    batch = a_batch(database, 4)
    steer(database, steering.pause, batch)
    ended = cancel(database, batch)
    assert (ended.state, ended.cancelled) == (BatchState.CANCELLED, 4)
    assert chunk_states(database, batch.key) == ["done"]


def test_given_a_cancel_when_called_again_then_it_is_the_same(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 4, chunk_size=2)
    claim = a_claim(database, worker)
    assert claim is not None
    write(database, claim, worker)
    for _ in range(3):
        ended = cancel(database, batch)
        assert (ended.state, ended.succeeded, ended.cancelled) == (BatchState.CANCELLED, 2, 2)
    Snapshot.of(database).check()


@pytest.mark.parametrize("verb", [steering.pause, steering.begin_cancel])
def test_given_a_finished_batch_when_steered_then_it_is_refused_and_stays(
    database: Database, worker: int, verb: Verb
) -> None:
    batch = a_batch(database, 4)
    drain(database, worker)
    with pytest.raises(ConflictError, match=f"{batch.id} is completed: there is nothing left to"):
        steer(database, verb, batch)
    with pytest.raises(ConflictError, match="only a paused batch can be resumed"):
        steer(database, steering.resume, batch)
    assert batch_now(database, batch).state == BatchState.COMPLETED


def test_given_failed_jobs_when_retried_then_only_they_run_again(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 8, chunk_size=4, invalid=[8])
    for claim in claims(database, worker):
        write(database, claim, worker, bad=(2, 3, 7))
    ended = batch_now(database, batch)
    assert (ended.state, ended.failed) == (BatchState.COMPLETED, 4)

    assert retry(database, ended) == 3
    again = batch_now(database, batch)
    assert (again.state, again.failed, again.finished_at) == (BatchState.IN_PROGRESS, 1, None)
    with database.read() as connection:
        job = jobs.get_job(connection, batch.id, 2)
    assert (job.state, job.attempts, job.error_code) == (JobState.QUEUED, 0, None)
    found = claims(database, worker)
    assert [[job.line for job in one.jobs] for one in found] == [[2, 3], [7]]
    for claim in found:
        write(database, claim, worker)
    assert batch_now(database, batch).failed == 1
    assert batch_now(database, batch).state == BatchState.COMPLETED
    Snapshot.of(database).check()


def test_given_nothing_to_retry_when_retried_then_nothing_changes(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 3, invalid=[1])
    drain(database, worker)
    ended = batch_now(database, batch)
    assert retry(database, ended, [1, 2, 3]) == 0
    assert batch_now(database, batch) == ended


def test_given_a_paused_batch_when_retried_then_the_retry_waits_for_the_resume(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 4, chunk_size=2)
    claim = a_claim(database, worker)
    assert claim is not None
    write(database, claim, worker, bad=(1,))
    before_the_pause = batch_now(database, batch)
    steer(database, steering.pause, batch)
    assert retry(database, before_the_pause) == 1
    assert batch_now(database, batch).state == BatchState.PAUSED
    Snapshot.of(database).check()
    assert a_claim(database, worker) is None
    steer(database, steering.resume, batch)
    drain(database, worker)
    assert batch_now(database, batch).succeeded == 4


def test_given_a_cancel_between_reading_and_retrying_when_retried_then_the_cancel_stands(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 4, chunk_size=2)
    claim = a_claim(database, worker)
    assert claim is not None
    write(database, claim, worker, bad=(1,))
    before_the_cancel = batch_now(database, batch)
    steer(database, steering.begin_cancel, batch)
    with pytest.raises(ConflictError, match="is cancelling: nothing of it can be retried now"):
        retry(database, before_the_cancel)
    with database.write() as connection:
        steering.finish_cancel(connection, batch.key)
    Snapshot.of(database).check()


def test_given_a_cancelled_batch_when_its_failed_jobs_are_retried_then_it_goes_on_with_them(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 4, chunk_size=2)
    claim = a_claim(database, worker)
    assert claim is not None
    write(database, claim, worker, bad=(1,))
    assert retry(database, cancel(database, batch)) == 1
    drain(database, worker)
    ended = batch_now(database, batch)
    assert (ended.state, ended.succeeded, ended.cancelled) == (BatchState.COMPLETED, 2, 2)
    Snapshot.of(database).check()


def test_given_a_batch_when_deleted_then_nothing_of_it_and_all_of_the_others_is_left(
    database: Database, worker: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "SLICE", 3)
    gone, kept = a_batch(database, 10), a_batch(database, 10)
    with database.read() as connection, pytest.raises(ConflictError, match="promptmill cancel"):
        batches.require_deletable(connection, gone.id)
    drain(database, worker)
    with database.read() as connection:
        assert batches.require_deletable(connection, gone.id).key == gone.key
    deletion.delete_batch(database, gone.key)
    deletion.delete_batch(database, gone.key)
    left = Snapshot.of(database)
    assert set(left.batches) == {kept.key}
    assert {row.batch_id for row in [*left.jobs, *left.chunks, *left.results]} == {kept.key}
    with database.write() as connection, pytest.raises(NotFoundError):
        retries.requeue(connection, gone, [1], 1)


def test_given_a_deletion_that_was_interrupted_when_called_again_then_it_goes_on(
    database: Database, worker: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "SLICE", 3)
    batch = a_batch(database, 10)
    drain(database, worker)
    assert deletion._delete_slice(database, batch.key)
    assert batch_now(database, batch).total == 10
    deletion.delete_batch(database, batch.key)
    assert not Snapshot.of(database).batches
