"""What a batch's row says, and a recount."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, exists, func, or_, select

from db.queries.audit.job_rows import CLOCK_STEP
from db.queries.audit.question import OPEN_BATCH, Scope
from db.sample_counts import COUNTERS, TRUNCATED, SampleCounts
from db.schema import batches, jobs, results
from db.states import BATCH_TERMINAL, JOB_TERMINAL, BatchState, JobState

#: While it is filled, a batch counts nothing yet.
_FILLED = batches.c.state != BatchState.VALIDATING


def unknown_state(scope: Scope) -> Select[Any]:
    return _batches(scope).where(batches.c.state.not_in(list(BatchState)))


def wrong_lines(scope: Scope) -> Select[Any]:
    """Lines are unique: if so many lie between the first and the last, none is missing."""
    found = (
        select(
            jobs.c.batch_id,
            func.count().label("number"),
            func.min(jobs.c.line).label("first"),
            func.max(jobs.c.line).label("last"),
        )
        .where(scope.covers(jobs.c.batch_id))
        .group_by(jobs.c.batch_id)
        .subquery("found")
    )
    number = func.coalesce(found.c.number, 0)
    return (
        _batches(scope)
        .outerjoin(found, found.c.batch_id == batches.c.id)
        .where(
            _FILLED,
            or_(
                number != batches.c.total,
                and_(number > 0, or_(found.c.first != 1, found.c.last != batches.c.total)),
            ),
        )
    )


def wrong_counters(scope: Scope) -> Select[Any]:
    states = sorted(JOB_TERMINAL)
    counted = [
        func.sum(case((jobs.c.state == state, 1), else_=0)).label(f"n_{state}") for state in states
    ]
    found = (
        select(jobs.c.batch_id, *counted)
        .where(scope.covers(jobs.c.batch_id))
        .group_by(jobs.c.batch_id)
        .subquery("found")
    )
    wrong = [func.coalesce(found.c[f"n_{state}"], 0) != batches.c[state] for state in states]
    return (
        _batches(scope)
        .outerjoin(found, found.c.batch_id == batches.c.id)
        .where(_FILLED, or_(*wrong))
    )


def wrong_tokens(scope: Scope) -> Select[Any]:
    """Prompts are counted by job, completions by sample."""
    read = _sum_by_batch(scope, jobs.c.batch_id, jobs.c.prompt_tokens)
    written = _sum_by_batch(scope, results.c.batch_id, results.c.completion_tokens)
    return (
        _batches(scope)
        .outerjoin(read, read.c.batch_id == batches.c.id)
        .outerjoin(written, written.c.batch_id == batches.c.id)
        .where(
            _FILLED,
            or_(
                func.coalesce(read.c.tokens, 0) != batches.c.prompt_tokens,
                func.coalesce(written.c.tokens, 0) != batches.c.completion_tokens,
            ),
        )
    )


def wrong_samples(scope: Scope) -> Select[Any]:
    """The counters of `db.sample_counts`."""
    cut = results.c.finish_reason == TRUNCATED
    tokens = case((cut, results.c.completion_tokens))
    found = (
        select(
            results.c.batch_id,
            func.count().label("samples"),
            func.count(tokens).label("truncated"),
            func.min(tokens).label("shortest_cut"),
            func.max(tokens).label("longest_cut"),
            func.count(results.c.reasoning).label("with_reasoning"),
            func.count(results.c.tool_calls).label("with_tool_calls"),
            func.count(results.c.logprobs).label("with_logprobs"),
        )
        .where(scope.covers(results.c.batch_id))
        .group_by(results.c.batch_id)
        .subquery("found")
    )
    wrong = [
        func.coalesce(found.c[name], _NONE[name]) != func.coalesce(batches.c[name], -1)
        for name in COUNTERS
    ]
    return (
        _batches(scope)
        .outerjoin(found, found.c.batch_id == batches.c.id)
        .where(_FILLED, or_(*wrong))
    )


#: What a counter of a batch without samples is; -1 for NULL.
_NONE = {name: -1 if value is None else value for name, value in asdict(SampleCounts()).items()}


def open_job_of_ended(scope: Scope) -> Select[Any]:
    return (
        select(jobs.c.batch_id, jobs.c.line.label("item"))
        .join(batches, batches.c.id == jobs.c.batch_id)
        .where(
            scope.covers(jobs.c.batch_id),
            jobs.c.state == JobState.QUEUED,
            batches.c.state.in_(list(BATCH_TERMINAL)),
        )
    )


def nothing_left(scope: Scope) -> Select[Any]:
    """A cancel settles its jobs first, and ends its batch in the same transaction."""
    open_job = and_(jobs.c.batch_id == batches.c.id, jobs.c.state == JobState.QUEUED)
    states = [state for state in OPEN_BATCH if state != BatchState.CANCELLING]
    return _batches(scope).where(batches.c.state.in_(states), ~exists().where(open_job))


def wrong_times(scope: Scope) -> Select[Any]:
    ended = batches.c.state.in_(list(BATCH_TERMINAL))
    begun = func.coalesce(batches.c.started_at, batches.c.created_at)
    return _batches(scope).where(
        batches.c.state.in_(list(BatchState)),
        or_(
            batches.c.started_at < batches.c.created_at - CLOCK_STEP,
            batches.c.finished_at < begun - CLOCK_STEP,
            ended & batches.c.finished_at.is_(None),
            ~ended & batches.c.finished_at.is_not(None),
        ),
    )


def _batches(scope: Scope) -> Select[Any]:
    key = batches.c.id
    return select(key.label("batch_id"), key.label("item")).where(scope.covers(key))


def _sum_by_batch(scope: Scope, batch_id: ColumnElement[int], tokens: ColumnElement[int]) -> Any:
    return (
        select(batch_id.label("batch_id"), func.sum(tokens).label("tokens"))
        .where(scope.covers(batch_id))
        .group_by(batch_id)
        .subquery()
    )
