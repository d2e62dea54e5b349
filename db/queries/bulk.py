"""Many rows at once, as each database takes them best.

PostgreSQL: one statement with an array a column, a single round trip however many rows there are.
SQLite has no network between: a statement for all rows, run row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, case, insert, select, update

from db.clock import db_now
from db.schema import jobs, results
from db.states import JobState


class EndedAttempt(NamedTuple):
    """What an attempt leaves in its job's row; `state` is `queued` if it is to be tried again."""

    batch_id: int
    line: int
    state: str
    started_at: float | None
    prompt_tokens: int
    completion_tokens: int
    error_code: str | None
    error_message: str | None


class Result(NamedTuple):
    """A row of `results`."""

    batch_id: int
    line: int
    sample: int
    text: str
    finish_reason: str
    completion_tokens: int
    logprobs: str | None


_END_POSTGRESQL = """
WITH given AS (
    SELECT * FROM unnest(
        %(batch_id)s::bigint[], %(line)s::integer[], %(state)s::varchar[],
        %(started_at)s::float8[], %(prompt_tokens)s::integer[], %(completion_tokens)s::integer[],
        %(error_code)s::varchar[], %(error_message)s::text[]
    ) AS given (
        batch_id, line, state, started_at, prompt_tokens, completion_tokens, error_code,
        error_message
    )
), open AS (
    SELECT jobs.batch_id, jobs.line
    FROM jobs JOIN given ON jobs.batch_id = given.batch_id AND jobs.line = given.line
    WHERE jobs.state = 'queued'
    ORDER BY jobs.batch_id, jobs.line
    FOR UPDATE OF jobs
)
UPDATE jobs SET
    state = given.state,
    attempts = jobs.attempts + 1,
    worker_id = %(worker)s,
    started_at = given.started_at,
    finished_at = CASE WHEN given.state <> 'queued'
        THEN extract(epoch FROM clock_timestamp())::float8 END,
    prompt_tokens = given.prompt_tokens,
    completion_tokens = given.completion_tokens,
    error_code = given.error_code,
    error_message = given.error_message
FROM given JOIN open ON open.batch_id = given.batch_id AND open.line = given.line
WHERE jobs.batch_id = given.batch_id AND jobs.line = given.line
RETURNING jobs.batch_id, jobs.line
"""

_STATE = bindparam("state", type_=jobs.c.state.type)

_END_SQLITE = (
    update(jobs)
    .where(jobs.c.batch_id == bindparam("b_batch_id"), jobs.c.line == bindparam("b_line"))
    .values(
        state=_STATE,
        attempts=jobs.c.attempts + 1,
        worker_id=bindparam("worker"),
        started_at=bindparam("started_at"),
        finished_at=case((_STATE != JobState.QUEUED, db_now())),
        prompt_tokens=bindparam("prompt_tokens"),
        completion_tokens=bindparam("completion_tokens"),
        error_code=bindparam("error_code"),
        error_message=bindparam("error_message"),
    )
)

_INSERT_POSTGRESQL = """
INSERT INTO results (batch_id, line, sample, text, finish_reason, completion_tokens, logprobs)
SELECT * FROM unnest(
    %(batch_id)s::bigint[], %(line)s::integer[], %(sample)s::integer[], %(text)s::text[],
    %(finish_reason)s::varchar[], %(completion_tokens)s::integer[], %(logprobs)s::text[]
)
"""


def end_attempts(
    connection: Connection, rows: Sequence[EndedAttempt], *, worker: int
) -> set[tuple[int, int]]:
    """Write those whose job is still queued, locking jobs in their order; (batch, line) of them.

    No job may come twice.
    """
    if not rows:
        return set()
    if connection.dialect.name == "postgresql":
        values = {**_columns(rows), "worker": worker}
        found = connection.exec_driver_sql(_END_POSTGRESQL, values)
        return {(row[0], row[1]) for row in found}
    waiting = _queued(connection, rows)
    written = [
        {**row._asdict(), "b_batch_id": row.batch_id, "b_line": row.line, "worker": worker}
        for row in rows
        if row[:2] in waiting
    ]
    if written:
        connection.execute(_END_SQLITE, written)
    return waiting


def insert_results(connection: Connection, rows: Sequence[Result]) -> None:
    """Store them. Raises through SQLAlchemy where a sample is there already."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_INSERT_POSTGRESQL, _columns(rows))
    else:
        connection.execute(insert(results), [row._asdict() for row in rows])


def _columns(rows: Sequence[EndedAttempt] | Sequence[Result]) -> dict[str, Any]:
    """A list of values by column."""
    return dict(zip(rows[0]._fields, map(list, zip(*rows, strict=True)), strict=True))


def _queued(connection: Connection, rows: Sequence[EndedAttempt]) -> set[tuple[int, int]]:
    """Which of these jobs are queued. A writer on SQLite is alone: there is nothing to lock."""
    found: set[tuple[int, int]] = set()
    for batch, members in groupby(sorted(rows, key=itemgetter(0, 1)), key=attrgetter("batch_id")):
        lines = [row.line for row in members]
        query = select(jobs.c.line).where(
            jobs.c.batch_id == batch, jobs.c.line.in_(lines), jobs.c.state == JobState.QUEUED
        )
        found |= {(batch, line) for line in connection.execute(query).scalars()}
    return found
