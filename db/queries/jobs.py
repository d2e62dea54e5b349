"""Jobs: written in slices at submit, read one by one, queued again by hand."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, exists, func, insert, select, update

from db.database import AnyRow
from db.errors import ConflictError, NotFoundError
from db.ids import job_id
from db.queries import attempts
from db.queries.batches import SLICE, get, locked, steering
from db.queries.chunks import lock_open
from db.records import Batch, Job
from db.schema import batches, chunks, jobs, results, workers
from db.states import BATCH_ACTIVE, BATCH_TERMINAL, BatchState, ChunkState, JobState

#: The error code of a line that was no valid request: nothing that a retry could mend.
INVALID = "invalid_request"

_INSERTED = (
    "batch_id", "line", "custom_id", "state", "request", "finished_at", "error_code",
    "error_message",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to store. One of an invalid line is stored as failed, with its reason."""

    line: int
    request: bytes
    custom_id: str | None = None
    error: str | None = None


def insert_slice(connection: Connection, batch: int, new: Sequence[NewJob], *, now: float) -> None:
    """Store jobs in bulk: COPY on PostgreSQL, executemany elsewhere."""
    rows = [_row(batch, job, now) for job in new]
    columns = ", ".join(_INSERTED)
    if connection.dialect.name == "postgresql":
        cursor = connection.connection.cursor()
        with cursor.copy(f"COPY jobs ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        return
    marks = ", ".join("?" * len(_INSERTED))
    connection.exec_driver_sql(
        f"INSERT INTO jobs ({columns}) VALUES ({marks})",  # noqa: S608 - constants only
        rows,
    )


def _row(batch: int, job: NewJob, now: float) -> tuple[Any, ...]:
    request = job.request.decode()
    if job.error is None:
        return (batch, job.line, job.custom_id, "queued", request, None, None, None)
    return (batch, job.line, job.custom_id, "failed", request, now, INVALID, job.error)


def last_line(connection: Connection, batch: int) -> int:
    """The last line that is stored; 0 for none."""
    query = select(func.max(jobs.c.line)).where(jobs.c.batch_id == batch)
    return connection.execute(query).scalar_one() or 0


def lines_of_custom_ids(
    connection: Connection, batch: int, custom_ids: Collection[str], *, before: int
) -> dict[str, int]:
    """Which of these custom_ids the batch has already before a line, and where."""
    found = connection.execute(
        select(jobs.c.custom_id, jobs.c.line).where(
            jobs.c.batch_id == batch, jobs.c.line < before, jobs.c.custom_id.in_(custom_ids)
        )
    )
    return {row.custom_id: row.line for row in found}


def get_job(connection: Connection, uid: str, line: int) -> Job:
    """One job with its samples. Raises NotFoundError."""
    batch = get(connection, uid)
    row = connection.execute(
        select(jobs, workers.c.name.label("worker"))
        .join(workers, workers.c.id == jobs.c.worker_id, isouter=True)
        .where(jobs.c.batch_id == batch.key, jobs.c.line == line)
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"batch {uid} has no job {line}: its jobs are 1 to {batch.total}")
    running = _running(connection, batch.key, line) if row.state == JobState.QUEUED else None
    return Job(
        id=job_id(uid, line),
        batch=uid,
        line=line,
        custom_id=row.custom_id,
        state=JobState.RUNNING if running else JobState(row.state),
        attempts=row.attempts,
        worker=running.name if running else row.worker,
        started_at=running.claimed_at if running else row.started_at,
        finished_at=row.finished_at,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        error_code=row.error_code,
        error_message=row.error_message,
        request=orjson.loads(row.request),
        samples=_samples(connection, batch.key, line),
        history=attempts.history(connection, batch.key, line),
    )


def _running(connection: Connection, batch: int, line: int) -> AnyRow | None:
    """The leased chunk that holds this line, with its worker's name."""
    found = connection.execute(
        select(chunks.c.lines, chunks.c.claimed_at, workers.c.name)
        .join(workers, workers.c.id == chunks.c.worker_id)
        .where(
            chunks.c.batch_id == batch,
            chunks.c.state == ChunkState.RUNNING,
            chunks.c.first_line <= line,
            chunks.c.last_line >= line,
        )
    )
    return next((row for row in found if row.lines is None or line in row.lines), None)


def _samples(connection: Connection, batch: int, line: int) -> list[dict[str, Any]]:
    found = connection.execute(
        select(
            results.c.sample,
            results.c.text,
            results.c.finish_reason,
            results.c.completion_tokens,
            results.c.logprobs,
        )
        .where(results.c.batch_id == batch, results.c.line == line)
        .order_by(results.c.sample)
    )
    return [
        {
            "sample": row.sample,
            "text": row.text,
            "finish_reason": row.finish_reason,
            "completion_tokens": row.completion_tokens,
            "logprobs": orjson.loads(row.logprobs) if row.logprobs else None,
        }
        for row in found
    ]


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
    steering(connection, batch.key)
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
    steering(connection, key)
    uid = connection.execute(select(batches.c.uid).where(batches.c.id == key)).scalar_one_or_none()
    if uid is None:
        return 0
    batch = get(connection, uid)
    size = connection.execute(select(batches.c.chunk_size).where(batches.c.id == key)).scalar_one()
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
    insert_chunks(connection, batch, homeless, size)
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
