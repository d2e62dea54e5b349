"""Batches past their deadline, batches that nothing would ever finish, and the history of jobs."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import update

from db.database import Database
from db.queries import batches, jobs, outcomes, steering
from db.records import Batch
from db.schema import batches as batch_table
from db.schema import chunks as chunk_table
from db.states import BatchState, JobState
from tests.support.invariants import Snapshot
from tests.support.steering import drain, retry, steer, write
from tests.support.stored import (
    a_batch,
    a_claim,
    a_worker,
    batch_now,
    chunk_states,
    claims,
    expire,
    failed,
)
from worker.recovery import deadlines, leases, strays


@pytest.fixture
def worker(database: Database) -> int:
    return a_worker(database)


def overdue(database: Database, batch: Batch) -> None:
    """Its deadline was long ago."""
    with database.write() as connection:
        connection.execute(
            update(batch_table).where(batch_table.c.id == batch.key).values(expires_at=1.0)
        )


def test_given_a_batch_past_its_deadline_when_recovering_then_its_open_jobs_expire(
    database: Database, worker: int
) -> None:
    batch, other = a_batch(database, 8, chunk_size=2), a_batch(database, 2)
    done, running, *_ = claims(database, worker)
    write(database, done, worker)
    overdue(database, batch)

    assert deadlines.run(database) == 6
    assert deadlines.run(database) == 0

    now = batch_now(database, batch)
    assert (now.state, now.succeeded, now.expired) == (BatchState.EXPIRED, 2, 6)
    assert set(chunk_states(database, batch.key)) == {"done"}
    assert batch_now(database, other).state == BatchState.IN_PROGRESS
    # The worker that still has a chunk of it writes too late.
    assert write(database, running, worker) == 0
    Snapshot.of(database).check()


@pytest.mark.parametrize("state", ["queued", "paused"])
def test_given_a_batch_that_nobody_has_begun_when_its_time_is_over_then_it_expires(
    database: Database, state: str
) -> None:
    batch = a_batch(database, 4)
    if state == "paused":
        steer(database, steering.pause, batch)
    overdue(database, batch)
    assert deadlines.run(database) == 4
    assert batch_now(database, batch).state == BatchState.EXPIRED
    Snapshot.of(database).check()


def test_given_a_finished_batch_when_its_deadline_passes_then_it_stays_completed(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 4)
    drain(database, worker)
    overdue(database, batch)
    assert deadlines.run(database) == 0
    assert batch_now(database, batch).state == BatchState.COMPLETED


def test_given_an_expired_batch_when_its_failed_jobs_are_retried_then_no_deadline_is_left(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 4, chunk_size=2)
    claim = a_claim(database, worker)
    assert claim is not None
    write(database, claim, worker, bad=(1,))
    overdue(database, batch)
    deadlines.run(database)
    assert retry(database, batch_now(database, batch)) == 1
    assert batch_now(database, batch).expires_at is None
    drain(database, worker)
    now = batch_now(database, batch)
    assert (now.state, now.succeeded, now.expired) == (BatchState.COMPLETED, 2, 2)
    Snapshot.of(database).check()


def test_given_a_deadline_ahead_when_submitted_then_it_is_counted_from_the_databases_clock(
    database: Database,
) -> None:
    with database.write() as connection:
        key = batches.create(
            connection, uid="b23456789bcd", name=None, model="m", queue="q", priority=5,
            params={}, metadata={}, chunk_size=4,
        )  # fmt: skip
        jobs.insert_slice(connection, key, [jobs.NewJob(1, '{"prompt": "a"}')], now=1.0)
        batches.activate(
            connection, key, total=1, failed=0, digest="d", idempotency_key=None, expires_after=60
        )
        made = batches.get(connection, "b23456789bcd")
    assert made.expires_at is not None
    assert 59 < made.expires_at - made.created_at < 90
    assert deadlines.run(database) == 0


def test_given_jobs_whose_chunk_was_lost_when_recovering_then_they_get_another(
    database: Database, worker: int, caplog: pytest.LogCaptureFixture
) -> None:
    batch, fine = a_batch(database, 8, chunk_size=4), a_batch(database, 4)
    with database.write() as connection:
        connection.execute(
            update(chunk_table).where(chunk_table.c.batch_id == batch.key).values(state="done")
        )
    with caplog.at_level(logging.ERROR):
        assert strays.run(database) == 1
    assert "no chunk to run and 8 open jobs" in caplog.text
    assert strays.run(database) == 0
    drain(database, worker)
    assert {batch_now(database, one).state for one in (batch, fine)} == {BatchState.COMPLETED}
    Snapshot.of(database).check()


def test_given_a_batch_that_only_lacks_its_end_when_recovering_then_it_is_completed(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 4)
    drain(database, worker)
    with database.write() as connection:
        connection.execute(update(batch_table).values(state="in_progress", finished_at=None))
    assert strays.run(database) == 1
    assert batch_now(database, batch).state == BatchState.COMPLETED


def test_given_attempts_that_failed_when_a_job_is_looked_at_then_all_of_them_are_told(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 2)
    first = a_claim(database, worker)
    assert first is not None
    with database.write() as connection:
        outcomes.record(connection, [failed(first, 1, again=True)], worker=worker)
    expire(database, first.chunk)
    with database.write() as connection:
        leases.run(connection, max_attempts=3)
    last = a_claim(database, worker)
    assert last is not None
    write(database, last, worker, bad=(1,))
    with database.read() as connection:
        job = jobs.get_job(connection, batch.id, 1)
    assert [one.error_code for one in job.history] == ["broken", "worker_lost", "broken"]
    assert all(one.worker and one.worker.startswith("host:") for one in job.history)
    assert (job.state, job.attempts) == (JobState.FAILED, 3)
    with database.read() as connection:
        assert [one.error_code for one in jobs.get_job(connection, batch.id, 2).history] == [
            "worker_lost"
        ]
