"""Read results as a stream: any size, constant memory, also while the batch runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from sqlalchemy import Select, select

from db.database import AnyRow, Database, allow_silence
from db.ids import job_id
from db.records import Batch, Result
from db.schema import jobs, results, workers
from db.states import JOB_TERMINAL, JobState

Order = Literal["finished", "input"]

#: Rows fetched at once.
_FETCH = 2_000


def stream(
    database: Database,
    batch: Batch,
    *,
    order: Order = "finished",
    failed_only: bool = False,
    with_request: bool = False,
) -> Iterator[Result]:
    """Every finished job of the batch, a record a sample; failed ones with their error.

    One consistent snapshot: what finishes meanwhile is not in it.
    """
    query = _query(batch.key, failed_only=failed_only, with_request=with_request)
    if order == "input":
        query = query.order_by(jobs.c.line, results.c.sample)
    else:
        query = query.order_by(jobs.c.finished_at, jobs.c.line, results.c.sample)
    with database.read() as connection:
        allow_silence(connection)
        rows = connection.execution_options(yield_per=_FETCH).execute(query)
        for row in rows:
            yield _result(batch, row)


def _query(key: int, *, failed_only: bool, with_request: bool) -> Select[Any]:
    columns: list[Any] = [
        jobs.c.line, jobs.c.custom_id, jobs.c.state, jobs.c.attempts, jobs.c.prompt_tokens,
        jobs.c.started_at, jobs.c.finished_at, jobs.c.error_code, jobs.c.error_message,
        results.c.sample, results.c.text, results.c.finish_reason, results.c.completion_tokens,
        results.c.logprobs, workers.c.revision, workers.c.engine, workers.c.dtype,
        workers.c.name.label("worker"),
    ]  # fmt: skip
    if with_request:
        columns.append(jobs.c.request)
    states = [JobState.FAILED] if failed_only else sorted(JOB_TERMINAL)
    joined = jobs.join(
        results,
        (results.c.batch_id == jobs.c.batch_id) & (results.c.line == jobs.c.line),
        isouter=True,
    ).join(workers, workers.c.id == jobs.c.worker_id, isouter=True)
    return (
        select(*columns).select_from(joined).where(jobs.c.batch_id == key, jobs.c.state.in_(states))
    )


def _result(batch: Batch, row: AnyRow) -> Result:
    return Result(
        id=job_id(batch.id, row.line),
        batch=batch.id,
        line=row.line,
        custom_id=row.custom_id,
        state=JobState(row.state),
        sample=row.sample or 0,
        text=row.text,
        finish_reason=row.finish_reason,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        logprobs=row.logprobs,
        model=batch.model,
        revision=row.revision,
        engine=row.engine,
        dtype=row.dtype,
        worker=row.worker,
        attempts=row.attempts,
        started_at=row.started_at,
        finished_at=row.finished_at,
        error_code=row.error_code,
        error_message=row.error_message,
        request=row.request if "request" in row._fields else None,
    )
