"""What users do to a batch, and what its deadline does: pause, resume, cancel, expire.

These, and retries, go one after the other for one batch: each changes chunks before it can hold
the batch (everyone locks chunks, then jobs, then the batch), and none may miss those that another
one makes meanwhile.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, text, update

from db.clock import db_now
from db.errors import ConflictError, LostRace
from db.queries.batches import get
from db.queries.chunks import lock_open
from db.records import Batch
from db.schema import batches, chunks, jobs
from db.states import (
    BATCH_ACTIVE,
    BATCH_TERMINAL,
    BatchState,
    ChunkState,
    JobState,
    require,
    sources,
)

#: Where the advisory locks of `alone_with` lie, beside those of recovery.
_STEERING = 0x6D696C73


def alone_with(connection: Connection, key: int) -> None:
    """Wait until nobody else pauses, resumes, cancels or retries this batch; first of all locks.

    Held to the end of the transaction. On SQLite a writing transaction is alone anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(
            text("SELECT pg_advisory_xact_lock(:space, :key)"),
            {"space": _STEERING, "key": key & 0x7FFFFFFF},
        )


def pause(connection: Connection, uid: str) -> Batch:
    """Hold back every chunk; a worker that runs one notices at its next heartbeat."""
    batch = _steered(connection, uid)
    if batch.state == BatchState.PAUSED:
        return batch
    if batch.state in BATCH_TERMINAL:
        raise ConflictError(f"batch {uid} is {batch.state}: there is nothing left to pause")
    lock_open(connection, [batch.key])
    open_states = [ChunkState.QUEUED, ChunkState.RUNNING]
    connection.execute(
        update(chunks)
        .where(chunks.c.batch_id == batch.key, chunks.c.state.in_(open_states))
        .values(state=ChunkState.HELD, lease_token=None, lease_expires_at=None, worker_id=None)
    )
    return _move(connection, batch, BatchState.PAUSED)


def resume(connection: Connection, uid: str) -> Batch:
    """Let a paused batch go on; its messages go out anew."""
    batch = _steered(connection, uid)
    if batch.state in BATCH_ACTIVE:
        return batch
    if batch.state != BatchState.PAUSED:
        raise ConflictError(f"batch {uid} is {batch.state}: only a paused batch can be resumed")
    lock_open(connection, [batch.key])
    connection.execute(
        update(chunks)
        .where(chunks.c.batch_id == batch.key, chunks.c.state == ChunkState.HELD)
        .values(state=ChunkState.QUEUED, sent_at=None)
    )
    begun = batch.started_at is not None
    return _move(connection, batch, BatchState.IN_PROGRESS if begun else BatchState.QUEUED)


def begin_cancel(connection: Connection, uid: str) -> Batch:
    """Say that the batch ends; `finish_cancel` then settles its jobs."""
    batch = _steered(connection, uid)
    if batch.state in (BatchState.CANCELLING, BatchState.CANCELLED):
        return batch
    if batch.state in BATCH_TERMINAL:
        raise ConflictError(f"batch {uid} is {batch.state}: there is nothing left to cancel")
    return _move(connection, batch, BatchState.CANCELLING)


def finish_cancel(connection: Connection, key: int) -> None:
    """Settle a cancelling batch: its open jobs become cancelled, finished ones stay.

    Nothing where somebody else has settled it already; it may even run again since.
    """
    alone_with(connection, key)
    due = (batches.c.id == key, batches.c.state == BatchState.CANCELLING)
    if connection.execute(select(batches.c.id).where(*due)).one_or_none() is None:
        return
    cancelled = _end_open(connection, key, JobState.CANCELLED)
    connection.execute(
        update(batches)
        .where(*due)
        .values(
            state=BatchState.CANCELLED,
            cancelled=batches.c.cancelled + cancelled,
            finished_at=db_now(),
        )
    )


def expire(connection: Connection, key: int) -> int:
    """End a batch that is past its deadline: its open jobs expire, finished ones stay; how many.

    0, and nothing changed, where it is not, or not any more.
    """
    alone_with(connection, key)
    due = (
        batches.c.id == key,
        batches.c.state.in_(sources(BatchState.EXPIRED)),
        batches.c.expires_at < db_now(),
    )
    if connection.execute(select(batches.c.id).where(*due)).one_or_none() is None:
        return 0
    expired = _end_open(connection, key, JobState.EXPIRED)
    connection.execute(
        update(batches)
        .where(*due)
        .values(
            state=BatchState.EXPIRED,
            expired=batches.c.expired + expired,
            finished_at=db_now(),
        )
    )
    return expired


def _end_open(connection: Connection, key: int, state: JobState) -> int:
    """Close a batch's open chunks, and its open jobs with this state; how many jobs."""
    lock_open(connection, [key])
    connection.execute(
        update(chunks)
        .where(chunks.c.batch_id == key, chunks.c.state != ChunkState.DONE)
        .values(state=ChunkState.DONE, lease_token=None, lease_expires_at=None)
    )
    return connection.execute(
        update(jobs)
        .where(jobs.c.batch_id == key, jobs.c.state == JobState.QUEUED)
        .values(state=state, finished_at=db_now())
    ).rowcount


def _steered(connection: Connection, uid: str) -> Batch:
    """The batch, and nobody else steers it until the transaction ends. Raises NotFoundError."""
    alone_with(connection, get(connection, uid).key)
    return get(connection, uid)


def _move(connection: Connection, batch: Batch, target: BatchState) -> Batch:
    """Guarded change of state. Raises ConflictError where it is not allowed, or lost a race."""
    require(batch.id, batch.state, target)
    moved = connection.execute(
        update(batches)
        .where(batches.c.id == batch.key, batches.c.state == batch.state)
        .values(state=target)
    ).rowcount
    if not moved:
        now = get(connection, batch.id)
        raise LostRace(f"batch {batch.id} has just become {now.state}: look and try again")
    return get(connection, batch.id)
