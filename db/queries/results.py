"""Read results as a stream: any size, constant memory, also while the batch runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Select, select

from db.database import Database, allow_silence
from db.records import Batch, Result
from db.schema import jobs, results, workers
from db.states import JOB_TERMINAL, JobState
from db.vectors import unpack

Order = Literal["finished", "input"]

_Page = list[tuple[Any, ...]]


class _Maker(NamedTuple):
    """Of a worker, what its results say."""

    revision: str | None
    engine: str | None
    dtype: str | None
    name: str | None


_STATES = {state.value: state for state in JobState}

#: Rows fetched at once.
_FETCH = 2_000


def stream(
    database: Database,
    batch: Batch,
    *,
    order: Order = "input",
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
    with database.read() as connection, connection.begin():
        allow_silence(connection)
        with closing(_cursor(connection, query)) as cursor:
            # Later than the snapshot of the rows, so that it has every worker that they name.
            makers = _makers(connection)
            fetch = partial(cursor.fetchmany, _FETCH)
            for rows in _pages(connection, fetch):
                for row in rows:
                    yield _result(batch, makers, *row)


def _cursor(connection: Connection, query: Select[Any]) -> Any:
    """The driver's own cursor on the rows of a query: nothing in them needs SQLAlchemy."""
    statement = query.compile(connection, compile_kwargs={"literal_binds": True})
    server_side = {"name": "results"} if connection.dialect.name == "postgresql" else {}
    cursor: Any = connection.connection.cursor(**server_side)
    cursor.execute(str(statement))
    return cursor


def _pages(connection: Connection, fetch: Callable[[], _Page]) -> Iterator[_Page]:
    # PostgreSQL finds the next rows while these are used; SQLite works in this process.
    if connection.dialect.name == "postgresql":
        return _ahead(fetch)
    return iter(fetch, [])


def _ahead(fetch: Callable[[], _Page]) -> Iterator[_Page]:
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="results") as thread:
        page = thread.submit(fetch)
        while rows := page.result():
            page = thread.submit(fetch)
            yield rows


def _query(key: int, *, failed_only: bool, with_request: bool) -> Select[Any]:
    columns: list[Any] = [
        jobs.c.line, jobs.c.custom_id, jobs.c.state, results.c.sample, results.c.text,
        results.c.finish_reason, jobs.c.prompt_tokens, results.c.completion_tokens,
        results.c.logprobs, results.c.logprob, results.c.embedding, jobs.c.worker_id,
        jobs.c.attempts, jobs.c.started_at, jobs.c.finished_at, jobs.c.error_code,
        jobs.c.error_message,
    ]  # fmt: skip
    if with_request:
        columns.append(jobs.c.request)
    states = [JobState.FAILED] if failed_only else sorted(JOB_TERMINAL)
    joined = jobs.join(
        results,
        (results.c.batch_id == jobs.c.batch_id) & (results.c.line == jobs.c.line),
        isouter=True,
    )
    return (
        select(*columns).select_from(joined).where(jobs.c.batch_id == key, jobs.c.state.in_(states))
    )


def _makers(connection: Connection) -> dict[int | None, _Maker]:
    """What a result says of each worker; None: no worker has done anything for it."""
    query = select(
        workers.c.id, workers.c.revision, workers.c.engine, workers.c.dtype, workers.c.name
    )
    made = {row.id: _Maker(*row[1:]) for row in connection.execute(query)}
    return {None: _Maker(None, None, None, None), **made}


def _result(
    batch: Batch,
    makers: Mapping[int | None, _Maker],
    line: int,
    custom_id: str | None,
    state: str,
    sample: int | None,
    text: str | None,
    finish_reason: str | None,
    prompt_tokens: int | None,
    completion_tokens: int | None,
    logprobs: str | None,
    logprob: float | None,
    embedding: bytes | None,
    worker: int | None,
    attempts: int,
    started_at: float | None,
    finished_at: float | None,
    error_code: str | None,
    error_message: str | None,
    request: str | None = None,
) -> Result:
    """A row of `_query`."""
    return Result(
        f"{batch.id}-{line}",
        batch.id,
        line,
        custom_id,
        _STATES[state],
        sample or 0,
        text,
        finish_reason,
        prompt_tokens,
        completion_tokens,
        logprobs,
        batch.model,
        *makers[worker],
        attempts,
        started_at,
        finished_at,
        error_code,
        error_message,
        request,
        logprob,
        None if embedding is None else unpack(embedding),
    )
