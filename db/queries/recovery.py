"""What recovery looks for: lost leases, half-done cancels, dead submissions.

Each is one question and one change, in one transaction; `worker.recovery` decides when.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, exists, insert, select, text, update

from db.clock import db_now
from db.database import AnyRow
from db.plan import is_last_attempt
from db.queries import attempts as attempt_queries
from db.queries.chunks import lines_of
from db.schema import batches, chunks, jobs
from db.states import BATCH_ACTIVE, BatchState, ChunkState, JobState, sources
from db.wording import count_of

_ADVISORY_LOCK = 0x6D696C6D


def try_lock(connection: Connection) -> bool:
    """Whether this transaction may do recovery; no other one does at the same time.

    On SQLite a writing transaction is alone anyway.
    """
    if connection.dialect.name != "postgresql":
        return True
    taken = connection.execute(text(f"SELECT pg_try_advisory_xact_lock({_ADVISORY_LOCK})"))
    return bool(taken.scalar_one())


_CHUNK = (
    chunks.c.id, chunks.c.batch_id, chunks.c.first_line, chunks.c.last_line, chunks.c.lines,
    chunks.c.losses, chunks.c.worker_id, chunks.c.queue, chunks.c.priority, chunks.c.claimed_at,
)  # fmt: skip


def expired_leases(connection: Connection, limit: int) -> list[AnyRow]:
    """Running chunks whose worker has been silent for longer than its lease."""
    return list(
        connection.execute(
            select(*_CHUNK)
            .where(chunks.c.state == ChunkState.RUNNING, chunks.c.lease_expires_at < db_now())
            .order_by(chunks.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
    )


def retry_later(
    connection: Connection, chunk: int, token: str, *, max_attempts: int, delay: float
) -> None:
    """Queue what is unfinished of a chunk that is still ours, to be claimed after `delay` s."""
    row = connection.execute(
        select(*_CHUNK)
        .where(
            chunks.c.id == chunk,
            chunks.c.lease_token == token,
            chunks.c.state == ChunkState.RUNNING,
        )
        .with_for_update()
    ).one_or_none()
    if row is not None:
        put_back(
            connection, row, open_lines(connection, row), max_attempts=max_attempts, delay=delay
        )


def put_back(
    connection: Connection,
    chunk: AnyRow,
    open_jobs: list[tuple[int, int]],
    *,
    max_attempts: int,
    delay: float = 0.0,
) -> None:
    """Queue a chunk's unfinished jobs (line, attempts) again.

    One that has a single attempt left gets a chunk of its own: workers run it alone, so that a
    job which breaks its worker takes no other with it to the end.
    """
    apart = [line for line, attempts in open_jobs if is_last_attempt(attempts, max_attempts)]
    rest = [line for line, attempts in open_jobs if not is_last_attempt(attempts, max_attempts)]
    if apart or not open_jobs:
        replace_chunk(connection, chunk, apart, rest, delay=delay)
    else:
        requeue_chunk(connection, chunk, delay=delay)


def open_lines(connection: Connection, chunk: AnyRow) -> list[tuple[int, int]]:
    """(line, attempts) of the chunk's unfinished jobs."""
    found = connection.execute(
        select(jobs.c.line, jobs.c.attempts)
        .where(lines_of(chunk), jobs.c.state == JobState.QUEUED)
        .order_by(jobs.c.line)
        .with_for_update()
    )
    return [(row.line, row.attempts) for row in found]


def leased(connection: Connection, tokens: Mapping[int, str]) -> list[AnyRow]:
    """Those of these chunks (id → token) that are still ours, locked."""
    return list(
        connection.execute(
            select(*_CHUNK)
            .where(
                chunks.c.id.in_(tokens),
                chunks.c.lease_token.in_(tokens.values()),
                chunks.c.state == ChunkState.RUNNING,
            )
            .order_by(chunks.c.id)
            .with_for_update()
        )
    )


def held_by(connection: Connection, worker: int) -> list[AnyRow]:
    """The chunks that this worker (its key) has claimed and not given back, locked."""
    return list(
        connection.execute(
            select(*_CHUNK)
            .where(chunks.c.worker_id == worker, chunks.c.state == ChunkState.RUNNING)
            .order_by(chunks.c.id)
            .with_for_update()
        )
    )


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a worker will not finish its chunks."""

    code: str
    message: str


def lose(
    connection: Connection, chunk: AnyRow, loss: Loss, *, max_attempts: int
) -> tuple[int, int]:
    """Put a locked chunk back, an attempt poorer; its unfinished jobs, and those given up."""
    charge_attempt(connection, chunk, loss)
    open_jobs = open_lines(connection, chunk)
    spent = [line for line, attempts in open_jobs if attempts >= max_attempts]
    rest = [job for job in open_jobs if job[1] < max_attempts]
    put_back(connection, chunk, rest, max_attempts=max_attempts)
    if spent:
        times = count_of(max_attempts, "time")
        park(connection, chunk, spent, Loss(loss.code, f"{loss.message}, {times}"))
    return len(open_jobs), len(spent)


def charge_attempt(connection: Connection, chunk: AnyRow, loss: Loss) -> None:
    """The chunk's unfinished jobs have spent an attempt."""
    attempt_queries.add_lost(connection, chunk, loss.code, loss.message)
    connection.execute(
        update(jobs)
        .where(lines_of(chunk), jobs.c.state == JobState.QUEUED)
        .values(attempts=jobs.c.attempts + 1, error_code=loss.code, error_message=loss.message)
    )


def park(connection: Connection, chunk: AnyRow, lines: list[int], loss: Loss) -> None:
    """Give these jobs up: failed, with the diagnosis."""
    parked = connection.execute(
        update(jobs)
        .where(
            jobs.c.batch_id == chunk.batch_id,
            jobs.c.line.in_(lines),
            jobs.c.state == JobState.QUEUED,
        )
        .values(
            state=JobState.FAILED,
            worker_id=chunk.worker_id,
            finished_at=db_now(),
            error_code=loss.code,
            error_message=loss.message,
        )
    ).rowcount
    connection.execute(
        update(batches)
        .where(batches.c.id == chunk.batch_id)
        .values(failed=batches.c.failed + parked)
    )


def requeue_chunk(connection: Connection, chunk: AnyRow, *, delay: float = 0.0) -> None:
    """Let another worker take the chunk as it is."""
    connection.execute(
        update(chunks)
        .where(chunks.c.id == chunk.id)
        .values(
            state=ChunkState.QUEUED,
            losses=chunks.c.losses + 1,
            lease_token=None,
            lease_expires_at=None,
            worker_id=None,
            not_before=db_now() + delay,
            sent_at=None,
        )
    )


def replace_chunk(
    connection: Connection,
    chunk: AnyRow,
    apart: Sequence[int],
    rest: Sequence[int] = (),
    *,
    delay: float = 0.0,
) -> None:
    """Close the chunk; each line of `apart` gets a chunk of its own, the `rest` one together."""
    connection.execute(
        update(chunks)
        .where(chunks.c.id == chunk.id)
        .values(state=ChunkState.DONE, lease_token=None, lease_expires_at=None)
    )
    groups = [[line] for line in apart] + ([list(rest)] if rest else [])
    if not groups:
        return
    due = connection.execute(select(db_now() + delay)).scalar_one()
    connection.execute(
        insert(chunks),
        [
            {
                "batch_id": chunk.batch_id,
                "queue": chunk.queue,
                "priority": chunk.priority,
                "state": ChunkState.QUEUED,
                "first_line": lines[0],
                "last_line": lines[-1],
                "lines": lines if len(lines) > 1 else None,
                "losses": chunk.losses + 1,
                "not_before": due,
            }
            for lines in groups
        ],
    )


def cancelling(connection: Connection) -> list[int]:
    """Batches whose cancel was begun and not finished."""
    begun = select(batches.c.id).where(batches.c.state == BatchState.CANCELLING)
    return list(connection.execute(begun).scalars())


def without_chunks(connection: Connection) -> list[int]:
    """Batches that run and have no open chunk: there should be none."""
    openly = exists().where(chunks.c.batch_id == batches.c.id, chunks.c.state != ChunkState.DONE)
    return list(
        connection.execute(
            select(batches.c.id).where(batches.c.state.in_(sorted(BATCH_ACTIVE)), ~openly)
        ).scalars()
    )


def overdue(connection: Connection) -> list[int]:
    """Unfinished batches past their deadline."""
    return list(
        connection.execute(
            select(batches.c.id).where(
                batches.c.state.in_(sources(BatchState.EXPIRED)), batches.c.expires_at < db_now()
            )
        ).scalars()
    )


def stale_submissions(connection: Connection, older_than: float) -> list[int]:
    """Batches still validating that no producer has touched for `older_than` seconds."""
    return list(
        connection.execute(
            select(batches.c.id).where(
                batches.c.state == BatchState.VALIDATING,
                batches.c.touched_at < db_now() - older_than,
            )
        ).scalars()
    )
