"""Read results as a stream: any size, constant memory, also while the batch runs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Select, literal_column, select

from db.database import Database, allow_silence
from db.exact_json import dumps
from db.modes import Mode
from db.pages import Maker, Page, StoredPage
from db.queries import batches as batch_queries
from db.recipe import Recipes
from db.records import Batch, Result
from db.sample_counts import TRUNCATED
from db.schema import jobs, results, workers
from db.states import JOB_TERMINAL, JobState

Order = Literal["finished", "input"]

#: Which records; None: all of them.
Only = Literal["succeeded", "failed", "truncated"]

_Rows = list[tuple[Any, ...]]

#: JSON of a line's own parameters. Parsed only where there are some: inside of a text, this
#: mark has its quotes escaped.
_OVERRIDES = {
    "postgresql": """CASE WHEN strpos(jobs.request, '"params":') > 0
        THEN (jobs.request::json -> 'params')::text END""",
    "sqlite": """CASE WHEN instr(jobs.request, '"params":') > 0
        THEN json_extract(jobs.request, '$.params') END""",
}

#: What a mode alone gives: of another batch it is not even asked for.
_OWN = {
    Mode.GENERATE: (results.c.reasoning, results.c.tool_calls),
    Mode.SCORE: (results.c.logprob,),
    Mode.EMBED: (results.c.embedding,),
}

#: Rows fetched at once.
_FETCH = 2_000
#: Records of a page.
_PAGE = 250


@dataclass(frozen=True, slots=True)
class Selection:
    """Which results, with what, in which order."""

    order: Order = "input"
    only: Only | None = None
    with_request: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Results of one moment."""

    #: As it is then: its counters cover the pages.
    batch: Batch
    #: To be read once.
    pages: Iterator[Page]


def stream(
    database: Database,
    batch: Batch,
    *,
    order: Order = "input",
    only: Only | None = None,
    with_request: bool = False,
) -> Iterator[Result]:
    """Every finished job of the batch, a record a sample; failed ones with their error.

    One consistent snapshot: what finishes meanwhile is not in it.
    """
    found = pages(database, batch, order=order, only=only, with_request=with_request)
    # So that a reader who leaves early ends the transaction.
    with closing(found):
        for page in found:
            yield from page


def pages(
    database: Database,
    batch: Batch,
    *,
    order: Order = "input",
    only: Only | None = None,
    with_request: bool = False,
) -> Generator[Page]:
    """The same in columns, for those who take many records at once."""
    with snapshot(database, batch, Selection(order, only, with_request)) as found:
        yield from found.pages


@contextmanager
def snapshot(database: Database, batch: Batch, selection: Selection) -> Iterator[Snapshot]:
    """The same, with the batch as it is at that moment."""
    fields, query = _query(batch, _OVERRIDES[database.dialect], selection)
    with database.read() as connection, connection.begin():
        allow_silence(connection)
        with closing(_cursor(connection, query)) as cursor:
            # Later than the snapshot of the rows, so that both have all that these name.
            fresh = batch_queries.get(connection, batch.id)
            makers = _makers(connection)
            with closing(_pages(connection, cursor, fresh, fields, makers)) as found:
                yield Snapshot(fresh, found)


def _pages(
    connection: Connection,
    cursor: Any,
    batch: Batch,
    fields: tuple[str, ...],
    makers: dict[int | None, Maker],
) -> Generator[Page]:
    recipes = Recipes(batch.id, dumps(dict(batch.params)), batch.mode)
    worker = fields.index("worker_id")
    for rows in _fetched(connection, partial(cursor.fetchmany, _FETCH)):
        for start in range(0, len(rows), _PAGE):
            some = rows[start : start + _PAGE]
            # Of all workers that there ever were, these few travel with the page.
            its = {key: makers[key] for key in {row[worker] for row in some}}
            yield StoredPage(batch.id, batch.model, its, recipes, fields, some, batch.input_columns)


def _cursor(connection: Connection, query: Select[Any]) -> Any:
    """The driver's own cursor on the rows of a query: nothing in them needs SQLAlchemy."""
    statement = query.compile(connection, compile_kwargs={"literal_binds": True})
    server_side = {"name": "results"} if connection.dialect.name == "postgresql" else {}
    cursor: Any = connection.connection.cursor(**server_side)
    cursor.execute(str(statement))
    return cursor


def _fetched(connection: Connection, fetch: Callable[[], _Rows]) -> Iterator[_Rows]:
    # PostgreSQL finds the next rows while these are used; SQLite works in this process.
    if connection.dialect.name == "postgresql":
        return _ahead(fetch)
    return iter(fetch, [])


def _ahead(fetch: Callable[[], _Rows]) -> Iterator[_Rows]:
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="results") as thread:
        page = thread.submit(fetch)
        while rows := page.result():
            page = thread.submit(fetch)
            yield rows


def _query(
    batch: Batch, overrides: str, selection: Selection
) -> tuple[tuple[str, ...], Select[Any]]:
    """The names of a row's values, and the rows."""
    columns: list[ColumnElement[Any]] = [
        jobs.c.line, jobs.c.custom_id, jobs.c.state, results.c.sample, results.c.text,
        results.c.finish_reason, jobs.c.prompt_tokens, results.c.completion_tokens,
        results.c.logprobs, jobs.c.worker_id, literal_column(overrides).label("overrides"),
        jobs.c.attempts, jobs.c.started_at, jobs.c.finished_at, jobs.c.error_code,
        jobs.c.error_message, *_OWN[batch.mode],
    ]  # fmt: skip
    if selection.with_request:
        columns.append(jobs.c.request)
    if batch.input_columns:
        columns.append(jobs.c.columns)
    joined = jobs.join(
        results,
        (results.c.batch_id == jobs.c.batch_id) & (results.c.line == jobs.c.line),
        isouter=True,
    )
    states = sorted(JOB_TERMINAL) if selection.only is None else _STATES[selection.only]
    query = (
        select(*columns)
        .select_from(joined)
        .where(jobs.c.batch_id == batch.key, jobs.c.state.in_(states))
    )
    if selection.only == "truncated":
        query = query.where(results.c.finish_reason == TRUNCATED)
    by_line = (jobs.c.line, results.c.sample)
    order = by_line if selection.order == "input" else (jobs.c.finished_at, *by_line)
    return tuple(column.key or "" for column in columns), query.order_by(*order)


_STATES: dict[Only, list[JobState]] = {
    "succeeded": [JobState.SUCCEEDED],
    "failed": [JobState.FAILED],
    "truncated": [JobState.SUCCEEDED],
}


def _makers(connection: Connection) -> dict[int | None, Maker]:
    """What a result says of each worker; None: no worker has done anything for it."""
    query = select(workers.c.id, *(workers.c[name] for name in Maker._fields))
    made = {row.id: Maker(*row[1:]) for row in connection.execute(query)}
    return {None: Maker(*[None] * len(Maker._fields)), **made}
