"""What recovery finds, and what it makes of it."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from db.clock import db_now
from db.database import AnyRow, Database
from db.ids import new_uid
from db.queries import batches, jobs, outcomes, recovery, steering
from db.queries.recovery import Loss
from db.records import Claim
from db.schema import batches as batch_table
from db.settings import Settings
from db.states import BatchState, JobState
from tests.support.invariants import Snapshot
from tests.support.stored import (
    MODEL,
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
from worker.recovery import cancels


@pytest.fixture
def worker(database: Database) -> int:
    return a_worker(database, name="the lost one")


def lost_chunk(database: Database, worker: int) -> tuple[Claim, AnyRow]:
    """A chunk of four jobs, the first one written, whose worker fell silent."""
    a_batch(database, 4, chunk_size=4)
    claim = a_claim(database, worker)
    assert claim is not None
    with database.write() as connection:
        outcomes.record(connection, [succeeded(claim, 1)], worker=worker)
    expire(database, claim.chunk)
    with database.read() as connection:
        (row,) = recovery.expired_leases(connection, 10)
    return claim, row


def test_given_leases_when_looked_for_then_only_the_expired_ones_are_found(
    database: Database, worker: int
) -> None:
    a_batch(database, 3, chunk_size=1)
    held = claims(database, worker)
    with database.read() as connection:
        assert recovery.expired_leases(connection, 10) == []
    for claim in held[:2]:
        expire(database, claim.chunk)
    with database.read() as connection:
        found = recovery.expired_leases(connection, 10)
        assert [row.id for row in found] == [claim.chunk for claim in held[:2]]
        assert found[0].worker_id == worker
        assert len(recovery.expired_leases(connection, 1)) == 1


def test_given_a_lost_chunk_when_charged_then_only_its_open_jobs_pay(
    database: Database, worker: int
) -> None:
    claim, row = lost_chunk(database, worker)
    with database.write() as connection:
        recovery.charge_attempt(connection, row, Loss("worker_lost", "it fell silent"))
        assert recovery.open_lines(connection, row) == [(2, 1), (3, 1), (4, 1)]
        paid, done = (jobs.get_job(connection, claim.batch_uid, line) for line in (2, 1))
    assert (paid.error_code, paid.error_message) == ("worker_lost", "it fell silent")
    assert (done.attempts, done.error_code) == (1, None)


def test_given_a_lost_chunk_when_requeued_then_another_worker_gets_its_open_jobs(
    database: Database, worker: int
) -> None:
    claim, row = lost_chunk(database, worker)
    with database.write() as connection:
        recovery.requeue_chunk(connection, row)
        assert recovery.expired_leases(connection, 10) == []
    again = a_claim(database, a_worker(database))
    assert again is not None
    assert (again.chunk, [job.line for job in again.jobs]) == (claim.chunk, [2, 3, 4])
    assert again.token != claim.token
    expire(database, again.chunk)
    with database.read() as connection:
        (row,) = recovery.expired_leases(connection, 10)
    assert row.losses == 1


def test_given_a_lost_chunk_when_replaced_then_each_line_has_a_chunk_of_its_own(
    database: Database, worker: int
) -> None:
    claim, row = lost_chunk(database, worker)
    with database.write() as connection:
        recovery.replace_chunk(connection, row, [2, 4])
    assert chunk_states(database, claim.batch) == ["done", "queued", "queued"]
    found = claims(database, a_worker(database))
    assert [[job.line for job in one.jobs] for one in found] == [[2], [4]]


def test_given_jobs_when_parked_then_they_are_failed_with_the_diagnosis_and_counted(
    database: Database, worker: int
) -> None:
    claim, row = lost_chunk(database, worker)
    with database.write() as connection:
        # Line 1 has its result already: it is not given up any more.
        recovery.park(connection, row, [1, 2], Loss("worker_lost", "it killed its worker"))
        parked = jobs.get_job(connection, claim.batch_uid, 2)
        batch = batches.get(connection, claim.batch_uid)
    assert (parked.state, parked.worker) == (JobState.FAILED, "the lost one")
    assert (parked.error_code, parked.error_message) == ("worker_lost", "it killed its worker")
    assert (batch.failed, batch.succeeded) == (1, 1)


def test_given_half_done_cancels_when_finished_then_all_are_settled_once(
    database: Database, worker: int
) -> None:
    made = [a_batch(database, 4, chunk_size=2) for _ in range(3)]
    a_claim(database, worker)
    with database.write() as connection:
        for batch in made[:2]:
            steering.begin_cancel(connection, batch.id)
    assert cancels.run(database) == 2
    assert cancels.run(database) == 0
    states = [batch_now(database, batch).state for batch in made]
    assert states == [BatchState.CANCELLED, BatchState.CANCELLED, BatchState.QUEUED]
    Snapshot.of(database).check()


def test_given_submissions_when_looked_for_then_only_silent_unfinished_ones_are_stale(
    database: Database,
) -> None:
    keys = []
    with database.write() as connection:
        for _ in range(3):
            keys.append(
                batches.create(
                    connection,
                    uid=new_uid(),
                    name=None,
                    model=MODEL,
                    queue=QUEUE,
                    priority=5,
                    params={},
                    metadata={},
                    chunk_size=4,
                )
            )
    queued = a_batch(database, 1)
    old = [keys[0], keys[1], queued.key]
    with database.write() as connection:
        connection.execute(
            update(batch_table).where(batch_table.c.id.in_(old)).values(touched_at=db_now() - 700)
        )
        batches.touch(connection, keys[1])
    with database.read() as connection:
        assert recovery.stale_submissions(connection, 600) == [keys[0]]
        assert recovery.stale_submissions(connection, 800) == []


def test_given_postgresql_when_recovery_runs_then_another_one_does_not(postgres_url: str) -> None:
    database = Database(Settings(database_url=postgres_url))
    with database.write() as connection:
        assert recovery.try_lock(connection)
        assert recovery.try_lock(connection)
        with database.write() as other:
            assert not recovery.try_lock(other)
    with database.write() as other:
        assert recovery.try_lock(other)
    database.close()


def test_given_postgresql_when_a_flush_holds_an_expired_chunk_then_recovery_passes_it_by(
    postgres_url: str,
) -> None:
    database = Database(Settings(database_url=postgres_url))
    worker = a_worker(database)
    a_batch(database, 2, chunk_size=1)
    first, second = claims(database, worker)
    for claim in (first, second):
        expire(database, claim.chunk)
    with database.write() as connection:
        outcomes.record(connection, [succeeded(first, 1)], worker=worker)
        with database.write() as other:
            assert [row.id for row in recovery.expired_leases(other, 10)] == [second.chunk]
    database.close()
