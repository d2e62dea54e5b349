"""Which row belongs to which: jobs and chunks to batches, results to jobs, chunks to lines."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Integer, Select, and_, cast, exists, func, not_, or_, select
from sqlalchemy.sql.selectable import TableValuedAlias

from db.queries.audit.question import OPEN_CHUNK, Scope
from db.schema import batches, chunks, jobs, results
from db.states import BatchState, ChunkState


def jobs_without_batch(scope: Scope) -> Select[Any]:
    return select(jobs.c.batch_id, jobs.c.line.label("item")).where(
        scope.covers(jobs.c.batch_id), ~exists().where(batches.c.id == jobs.c.batch_id)
    )


def chunks_without_batch(scope: Scope) -> Select[Any]:
    return select(chunks.c.batch_id, chunks.c.id.label("item")).where(
        scope.covers(chunks.c.batch_id), ~exists().where(batches.c.id == chunks.c.batch_id)
    )


def results_without_job(scope: Scope) -> Select[Any]:
    theirs = and_(jobs.c.batch_id == results.c.batch_id, jobs.c.line == results.c.line)
    return (
        select(results.c.batch_id, results.c.line.label("item"))
        .where(scope.covers(results.c.batch_id), ~exists().where(theirs))
        .distinct()
    )


def unknown_state(scope: Scope) -> Select[Any]:
    return select(chunks.c.batch_id, chunks.c.id.label("item")).where(
        scope.covers(chunks.c.batch_id), chunks.c.state.not_in(list(ChunkState))
    )


def out_of_step(scope: Scope) -> Select[Any]:
    """Open chunks whose state does not go with their batch's. A cancel takes any of them."""
    runs = [BatchState.QUEUED, BatchState.IN_PROGRESS, BatchState.FINALIZING]
    fits = or_(
        batches.c.state == BatchState.CANCELLING,
        and_(batches.c.state.in_(runs), chunks.c.state != ChunkState.HELD),
        and_(batches.c.state == BatchState.PAUSED, chunks.c.state == ChunkState.HELD),
    )
    return (
        select(chunks.c.batch_id, chunks.c.id.label("item"))
        .join(batches, batches.c.id == chunks.c.batch_id)
        .where(
            scope.covers(chunks.c.batch_id),
            chunks.c.state.in_(OPEN_CHUNK),
            batches.c.state.in_(list(BatchState)),
            not_(fits),
        )
    )


def lines_outside(scope: Scope) -> Select[Any]:
    """Chunks of lines that their batch has not, or that list a line beyond first … last."""
    first, last = chunks.c.first_line, chunks.c.last_line
    each = listed_lines(scope.dialect)
    outside = not_(cast(each.c.value, Integer).between(first, last))
    return (
        select(chunks.c.batch_id, chunks.c.id.label("item"))
        .join(batches, batches.c.id == chunks.c.batch_id)
        .where(
            scope.covers(chunks.c.batch_id),
            or_(
                first < 1,
                last < first,
                last > batches.c.total,
                and_(
                    chunks.c.lines.is_not(None),
                    exists(select(1).select_from(each).where(outside).correlate(chunks)),
                ),
            ),
        )
    )


def listed_lines(dialect: str) -> TableValuedAlias:
    """The lines of a chunk that lists them, a row each, in the column `value`."""
    if dialect == "postgresql":
        listed = func.json_array_elements_text(chunks.c.lines)
        return listed.table_valued("value", name="listed").render_derived()
    return func.json_each(chunks.c.lines).table_valued("value", name="listed")
