"""The history of attempts that failed: what a job's last error alone would not tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, literal, select

from db.clock import db_now
from db.database import AnyRow
from db.queries.chunks import lines_of
from db.records import Attempt
from db.schema import attempts, jobs, workers
from db.states import JobState


def add(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Note attempts that have just failed: batch_id, line, worker_id, started_at, error_*."""
    if rows:
        connection.execute(insert(attempts).values(ended_at=db_now()), rows)


def add_lost(connection: Connection, chunk: AnyRow, code: str, message: str) -> None:
    """Note a failed attempt of every unfinished job of a chunk whose worker is gone."""
    lost = select(
        jobs.c.batch_id,
        jobs.c.line,
        literal(chunk.worker_id, attempts.c.worker_id.type),
        literal(chunk.claimed_at, attempts.c.started_at.type),
        db_now(),
        literal(code),
        literal(message),
    ).where(lines_of(chunk), jobs.c.state == JobState.QUEUED)
    names = ["batch_id", "line", "worker_id", "started_at", "ended_at", "error_code"]
    connection.execute(insert(attempts).from_select([*names, "error_message"], lost))


def history(connection: Connection, batch: int, line: int) -> list[Attempt]:
    """The failed attempts of a job, oldest first; by-hand retries do not clear it."""
    found = connection.execute(
        select(
            workers.c.name.label("worker"),
            attempts.c.started_at,
            attempts.c.ended_at,
            attempts.c.error_code,
            attempts.c.error_message,
        )
        .join(workers, workers.c.id == attempts.c.worker_id, isouter=True)
        .where(attempts.c.batch_id == batch, attempts.c.line == line)
        .order_by(attempts.c.id)
    )
    return [Attempt(**row._asdict()) for row in found]
