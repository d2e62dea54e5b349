"""Jobs that are queued again: failed ones by hand, homeless ones by recovery."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, exists, insert, select, update

from db.database import AnyRow
from db.errors import ConflictError
from db.queries.batches import SLICE, get, locked
from db.queries.chunks import lock_open
from db.queries.jobs import INVALID
from db.queries.steering import alone_with
from db.records import Batch
from db.schema import batches, chunks, jobs
from db.states import BATCH_ACTIVE, BATCH_TERMINAL, BatchState, ChunkState, JobState


def failed_lines(connection: Connection, batch: int, after: int) -> list[int]:
    """One slice of the failed jobs' lines, in order, beyond line `after`."""
    return list(
        connection.execute(
            select(jobs.c.line)
            .where(jobs.c.batch_id == batch, jobs.c.line > after, jobs.c.state == JobState.FAILED)
            .order_by(jobs.c.line)
            .limit(SLICE)
        ).scalars()
    )


def requeue(connection: Connection, batch: Batch, lines: Sequence[int], chunk_size: int) -> int:
    """Queue failed jobs of a batch again, with all their attempts before them; how many.

    Raises ConflictError where the batch, as it is by now, has nothing to retry.
    """
    alone_with(connection, batch.key)
    lock_open(connection, [batch.key])
    taken = sorted(
        connection.execute(
            update(jobs)
            .where(
                jobs.c.batch_id == batch.key,
                jobs.c.line.in_(lines),
                jobs.c.state == JobState.FAILED,
                jobs.c.error_code.is_distinct_from(INVALID),
            )
            .values(state=JobState.QUEUED, attempts=0, error_code=None, error_message=None,
                    finished_at=None, started_at=None)
            .returning(jobs.c.line)
        ).scalars()
    )  # fmt: skip
    # Read again under a lock: it may have been paused or cancelled since `batch` was read.
    batch = locked(connection, batch)
    if batch.state in (BatchState.VALIDATING, BatchState.CANCELLING):
        raise ConflictError(f"batch {batch.id} is {batch.state}: nothing of it can be retried now")
    if not taken:
        return 0
    take_out(connection, batch.key, taken)
    insert_chunks(connection, batch, taken, chunk_size)
    # Whoever retries after the deadline does not want it to strike again at once.
    lifted = {"expires_at": None} if batch.state == BatchState.EXPIRED else {}
    reopened = BatchState.IN_PROGRESS if batch.state in BATCH_TERMINAL else batch.state
    connection.execute(
        update(batches)
        .where(batches.c.id == batch.key)
        .values(failed=batches.c.failed - len(taken), state=reopened, finished_at=None, **lifted)
    )
    return len(taken)


def take_out(connection: Connection, key: int, lines: Sequence[int]) -> None:
    """Take failed jobs out of the open chunks that they ran in: they get another one.

    Else a chunk that is handed back or lost would bring them to a second worker.
    """
    overlapping = connection.execute(
        select(chunks.c.id, chunks.c.first_line, chunks.c.last_line, chunks.c.lines).where(
            chunks.c.batch_id == key,
            chunks.c.state != ChunkState.DONE,
            chunks.c.first_line <= lines[-1],
            chunks.c.last_line >= lines[0],
        )
    ).all()
    taken = set(lines)
    for chunk in overlapping:
        held = _lines(chunk)
        left = [line for line in held if line not in taken]
        if len(left) < len(held):
            connection.execute(update(chunks).where(chunks.c.id == chunk.id).values(lines=left))


def _lines(chunk: AnyRow) -> Sequence[int]:
    every = range(chunk.first_line, chunk.last_line + 1)
    return every if chunk.lines is None else list(chunk.lines)


def rehome(connection: Connection, key: int) -> int:
    """Give the open jobs of a running batch that has no open chunk new chunks; how many jobs."""
    alone_with(connection, key)
    row = connection.execute(
        select(batches.c.uid, batches.c.chunk_size).where(batches.c.id == key)
    ).one_or_none()
    if row is None:
        return 0
    batch = get(connection, row.uid)
    openly = exists().where(chunks.c.batch_id == key, chunks.c.state != ChunkState.DONE)
    homeless = list(
        connection.execute(
            select(jobs.c.line)
            .where(jobs.c.batch_id == key, jobs.c.state == JobState.QUEUED, ~openly)
            .order_by(jobs.c.line)
            .limit(SLICE)
        ).scalars()
    )
    if batch.state not in BATCH_ACTIVE or not homeless:
        return 0
    insert_chunks(connection, batch, homeless, row.chunk_size)
    return len(homeless)


def insert_chunks(
    connection: Connection, batch: Batch, lines: Sequence[int], chunk_size: int
) -> None:
    """Chunks of exactly these lines, held back where the batch is paused."""
    state = ChunkState.HELD if batch.state == BatchState.PAUSED else ChunkState.QUEUED
    connection.execute(
        insert(chunks),
        [
            {
                "batch_id": batch.key,
                "queue": batch.queue,
                "priority": batch.priority,
                "state": state,
                "first_line": part[0],
                "last_line": part[-1],
                "lines": list(part),
            }
            for part in (lines[i : i + chunk_size] for i in range(0, len(lines), chunk_size))
        ],
    )
