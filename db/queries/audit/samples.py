"""Results: there where a job succeeded, all of them, and nowhere else."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Select,
    and_,
    case,
    cast,
    exists,
    func,
    or_,
    select,
    type_coerce,
)

from db.queries.audit.question import Scope
from db.schema import batches, jobs, results
from db.states import JobState

_SUCCEEDED = jobs.c.state == JobState.SUCCEEDED
_OF_JOB = and_(results.c.batch_id == jobs.c.batch_id, results.c.line == jobs.c.line)


def missing(scope: Scope) -> Select[Any]:
    return select(jobs.c.batch_id, jobs.c.line.label("item")).where(
        scope.covers(jobs.c.batch_id), _SUCCEEDED, ~exists().where(_OF_JOB)
    )


def unearned(scope: Scope) -> Select[Any]:
    return (
        select(results.c.batch_id, results.c.line.label("item"))
        .join(jobs, _OF_JOB)
        .where(scope.covers(results.c.batch_id), ~_SUCCEEDED)
        .distinct()
    )


def incomplete(scope: Scope) -> Select[Any]:
    """Samples are unique by number: n of them up to n-1 are all of 0 … n-1.

    Of a list of prompts, n are of each.
    """
    found = _by_job(scope)
    of_batch = func.coalesce(batches.c.params["n"].as_integer(), 1)
    request = _request(scope)
    of_line = request["params"]["n"].as_integer()
    prompts = func.coalesce(func.nullif(func.json_array_length(request["prompts"]), 0), 1)
    # A request is read only where it may ask for another number of samples than the batch's n. In
    # JSON these quotes are around keys alone: within a text they are escaped.
    own = or_(jobs.c.request.like('%"prompts"%'), jobs.c.request.like('%"n"%'))
    explained = and_(found.c.number == of_batch, ~own)
    wanted = case((explained, of_batch), else_=func.coalesce(of_line, of_batch) * prompts)
    return (
        select(found.c.batch_id, found.c.line.label("item"))
        .join(jobs, and_(jobs.c.batch_id == found.c.batch_id, jobs.c.line == found.c.line))
        .join(batches, batches.c.id == found.c.batch_id)
        .where(_SUCCEEDED, or_(found.c.last + 1 != found.c.number, found.c.number != wanted))
    )


def wrong_tokens(scope: Scope) -> Select[Any]:
    found = _by_job(scope)
    theirs = and_(jobs.c.batch_id == found.c.batch_id, jobs.c.line == found.c.line)
    return (
        select(found.c.batch_id, found.c.line.label("item"))
        .join(jobs, theirs)
        .where(_SUCCEEDED, func.coalesce(jobs.c.completion_tokens, 0) != found.c.tokens)
    )


def _by_job(scope: Scope) -> Any:
    return (
        select(
            results.c.batch_id,
            results.c.line,
            func.count().label("number"),
            func.max(results.c.sample).label("last"),
            func.sum(results.c.completion_tokens).label("tokens"),
        )
        .where(scope.covers(results.c.batch_id))
        .group_by(results.c.batch_id, results.c.line)
        .subquery("found")
    )


def _request(scope: Scope) -> ColumnElement[Any]:
    """The stored text of a request as JSON; SQLite reads it as it is, and has no such type."""
    read = cast if scope.dialect == "postgresql" else type_coerce
    return read(jobs.c.request, JSON)
