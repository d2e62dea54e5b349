"""Which open jobs are in how many open chunks, by one sweep over the lines of every batch.

A chunk adds one where it begins and takes one away after its end; the running sum at a job's
line is the number of chunks that it is in. That sorts once, where a join of chunks and jobs by
ranges of lines would be at the mercy of the planner.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Subquery,
    cast,
    func,
    literal,
    select,
    true,
    union_all,
)

from db.queries.audit.ownership import listed_lines
from db.queries.audit.question import OPEN_BATCH, OPEN_CHUNK, Scope
from db.schema import batches, chunks, jobs
from db.states import JobState


def stranded(scope: Scope) -> Select[Any]:
    """Open jobs of open batches that are in no open chunk: nobody would ever run them."""
    swept = _swept(scope)
    return (
        select(swept.c.batch_id, swept.c.line.label("item"))
        .join(batches, batches.c.id == swept.c.batch_id)
        .where(swept.c.is_job == 1, swept.c.depth == 0, batches.c.state.in_(OPEN_BATCH))
    )


def doubled(scope: Scope) -> Select[Any]:
    """Open jobs in several open chunks: two workers could generate them at once."""
    swept = _swept(scope)
    return select(swept.c.batch_id, swept.c.line.label("item")).where(
        swept.c.is_job == 1, swept.c.depth > 1
    )


def _swept(scope: Scope) -> Subquery:
    """batch_id, line, is_job, depth: of every open job, the number of open chunks it is in."""
    events = union_all(
        *_edges(scope),
        *_edges_of_lists(scope),
        select(
            jobs.c.batch_id, jobs.c.line, literal(0).label("step"), literal(1).label("is_job")
        ).where(scope.covers(jobs.c.batch_id), jobs.c.state == JobState.QUEUED),
    ).subquery("events")
    depth = func.sum(events.c.step).over(
        partition_by=events.c.batch_id, order_by=events.c.line, range_=(None, 0)
    )
    return select(events.c.batch_id, events.c.line, events.c.is_job, depth.label("depth")).subquery(
        "swept"
    )


def _edges(scope: Scope) -> list[Select[Any]]:
    """Where the open chunks of neighbouring lines begin and end."""
    return [
        _edge(line, step).where(_of_open_chunk(scope), chunks.c.lines.is_(None))
        for line, step in ((chunks.c.first_line, 1), (chunks.c.last_line + 1, -1))
    ]


def _edges_of_lists(scope: Scope) -> list[Select[Any]]:
    """The same for chunks that list their lines: each line is a run of one."""
    each = listed_lines(scope.dialect)
    value = cast(each.c.value, Integer)
    return [
        _edge(line, step).select_from(chunks.join(each, true())).where(_of_open_chunk(scope))
        for line, step in ((value, 1), (value + 1, -1))
    ]


def _edge(line: ColumnElement[int], step: int) -> Select[Any]:
    return select(
        chunks.c.batch_id,
        line.label("line"),
        literal(step).label("step"),
        literal(0).label("is_job"),
    )


def _of_open_chunk(scope: Scope) -> ColumnElement[bool]:
    return scope.covers(chunks.c.batch_id) & chunks.c.state.in_(OPEN_CHUNK)
