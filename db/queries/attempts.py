"""The history of attempts that failed, and of answers that were not good enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, func, insert, literal, select

from db.clock import db_now
from db.database import AnyRow
from db.queries.chunks import lines_of
from db.records import Attempt
from db.schema import attempts, jobs, workers
from db.states import JobState


def add(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Note attempts: batch_id, line, worker_id, started_at, ended_at, error_*, params, samples.

    `ended_at` of None: it has just ended.
    """
    if not rows:
        return
    ended = func.coalesce(bindparam("ended", type_=attempts.c.ended_at.type), db_now())
    given = [
        {**{name: one[name] for name in one if name != "ended_at"}, "ended": one["ended_at"]}
        for one in rows
    ]
    connection.execute(insert(attempts).values(ended_at=ended), given)


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
    """A job's attempts that failed and answers that were rejected, oldest first.

    By-hand retries do not clear it.
    """
    found = connection.execute(
        select(
            workers.c.name.label("worker"),
            attempts.c.started_at,
            attempts.c.ended_at,
            attempts.c.error_code,
            attempts.c.error_message,
            attempts.c.params,
            attempts.c.samples,
        )
        .join(workers, workers.c.id == attempts.c.worker_id, isouter=True)
        .where(attempts.c.batch_id == batch, attempts.c.line == line)
        .order_by(attempts.c.id)
    )
    return [_attempt(row) for row in found]


def _attempt(row: AnyRow) -> Attempt:
    read = {
        name: None if (text := getattr(row, name)) is None else orjson.loads(text)
        for name in ("params", "samples")
    }
    return Attempt(**{**row._asdict(), **read})
