"""Jobs: written in slices at submit, read one by one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, func, select

from db.database import AnyRow
from db.errors import NotFoundError
from db.ids import job_id
from db.queries import attempts
from db.queries.batches import get
from db.records import Job
from db.schema import chunks, jobs, results, workers
from db.states import ChunkState, JobState

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
