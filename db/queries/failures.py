"""Failed jobs by their error code, with one example each."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, func, literal_column, select

from db.ids import job_id
from db.records import Batch, FailureGroup
from db.schema import jobs
from db.states import JobState

#: As a literal: with a bound value, SQLite does not use the index of failed jobs.
_FAILED: ColumnElement[str] = literal_column(f"'{JobState.FAILED}'")

#: Failed jobs that are looked at: milliseconds, however many a batch has.
COUNTED = 10_000


def by_code(connection: Connection, batch: Batch, *, limit: int = COUNTED) -> list[FailureGroup]:
    """The codes of the first `limit` failed jobs, the most frequent first.

    Reads an index of failed jobs alone, so its price does not depend on the size of the batch.
    """
    if not batch.failed:
        return []
    failed = (jobs.c.batch_id == batch.key) & (jobs.c.state == _FAILED)
    first = (
        select(jobs.c.line, jobs.c.error_code)
        .where(failed)
        .order_by(jobs.c.line)
        .limit(limit)
        .subquery()
    )
    groups = (
        select(
            first.c.error_code, func.count().label("number"), func.min(first.c.line).label("line")
        )
        .group_by(first.c.error_code)
        .subquery()
    )
    query = (
        select(groups.c.error_code, groups.c.number, groups.c.line, jobs.c.error_message)
        .join(jobs, (jobs.c.batch_id == batch.key) & (jobs.c.line == groups.c.line))
        .order_by(groups.c.number.desc(), groups.c.line)
    )
    return [
        FailureGroup(row.error_code, row.number, job_id(batch.id, row.line), row.error_message)
        for row in connection.execute(query)
    ]
