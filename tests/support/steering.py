"""What a user and a worker do to a batch, in a call each."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from db.database import Database
from db.queries import chunks, outcomes, retries, steering
from db.records import Batch, Claim
from tests.support.stored import a_claim, batch_now, failed, succeeded

Verb = Callable[[Connection, str], Batch]


def steer(database: Database, verb: Verb, batch: Batch) -> Batch:
    with database.write() as connection:
        return verb(connection, batch.id)


def cancel(database: Database, batch: Batch) -> Batch:
    steer(database, steering.begin_cancel, batch)
    with database.write() as connection:
        steering.finish_cancel(connection, batch.key)
    return batch_now(database, batch)


def retry(database: Database, batch: Batch, lines: list[int] | None = None) -> int:
    with database.write() as connection:
        wanted = lines or retries.failed_lines(connection, batch.key, 0)
        return retries.requeue(connection, batch, wanted, 2)


def write(database: Database, claim: Claim, worker: int, bad: tuple[int, ...] = ()) -> int:
    """As a worker's flush does: outcomes, the chunk's end and the batch's, in one transaction."""
    made = [
        failed(claim, job.line) if job.line in bad else succeeded(claim, job.line)
        for job in claim.jobs
    ]
    with database.write() as connection:
        chunks.lock(connection, [claim.chunk])
        written = outcomes.record(connection, made, worker=worker)
        chunks.finish(connection, {claim.chunk: claim.token})
        outcomes.settle(connection, [claim.batch])
    return written


def drain(database: Database, worker: int) -> None:
    while (claim := a_claim(database, worker)) is not None:
        write(database, claim, worker)
