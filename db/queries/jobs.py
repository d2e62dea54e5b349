"""Jobs: written in slices at submit, read one by one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, func, insert, select

from db.adapters import used_adapter
from db.database import AnyRow
from db.errors import NotFoundError
from db.exact_json import dumps, loads
from db.ids import job_id
from db.input_columns import ABSENT, JSON, decoded_rows
from db.queries import attempts
from db.queries.batches import get
from db.recipe import Recipes
from db.records import Batch, Job, Provenance, perplexity
from db.schema import chunks, jobs, results, workers
from db.states import JOB_TERMINAL, ChunkState, JobState
from db.vectors import unpack

#: The error code of a line that was no valid request: nothing that a retry could mend.
INVALID = "invalid_request"

#: Jobs that go to PostgreSQL together: it stores them while the next ones are written out.
_PIECE = 500

#: Of its worker. Which of the worker's adapters the job used, its parameters say.
_PROVENANCE = [workers.c[field.name] for field in fields(Provenance) if field.name != "adapter"]

#: COPY's own signs, in text.
_COPY_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


class NewJob(NamedTuple):
    """A job to store. One of an invalid line is stored as failed, with its reason."""

    line: int
    #: JSON, in one line.
    request: str
    custom_id: str | None = None
    error: str | None = None
    #: JSON of its input row's values, in one line (`db.input_columns`).
    columns: str | None = None


def insert_slice(connection: Connection, batch: int, new: Sequence[NewJob], *, now: float) -> None:
    """Store jobs in bulk: COPY on PostgreSQL, a statement for all rows on SQLite.

    Raises the driver's IntegrityError where a line or a custom_id is there already.
    """
    queued = [job for job in new if job.error is None]
    failed = [job for job in new if job.error is not None]
    if connection.dialect.name == "postgresql":
        _copy(connection, batch, queued)
    elif queued:
        _insert(connection, batch, queued)
    if failed:
        common = {"batch_id": batch, "state": JobState.FAILED, "finished_at": now}
        common["error_code"] = INVALID
        rows = [
            {
                **common,
                "line": job.line,
                "request": job.request,
                "custom_id": job.custom_id,
                "error_message": job.error,
                "columns": job.columns,
            }
            for job in failed
        ]
        connection.execute(insert(jobs), rows)


def _copy(connection: Connection, batch: int, new: Sequence[NewJob]) -> None:
    columns = "batch_id, line, custom_id, state, request, columns"
    with connection.connection.cursor().copy(f"COPY jobs ({columns}) FROM STDIN") as copy:
        for start in range(0, len(new), _PIECE):
            copy.write("".join([_copied(batch, job) for job in new[start : start + _PIECE]]))


def _copied(batch: int, job: NewJob) -> str:
    """The job as a line of COPY's text format."""
    line, request, custom_id, _, columns = job
    if custom_id is None:
        custom_id = r"\N"
    elif not custom_id.isalnum():
        custom_id = custom_id.translate(_COPY_ESCAPES)
    # JSON in one line has no tab and no line end of its own.
    request = request.replace("\\", r"\\")
    columns = r"\N" if columns is None else columns.replace("\\", r"\\")
    return f"{batch}\t{line}\t{custom_id}\tqueued\t{request}\t{columns}\n"


#: One statement for all rows: Python's other threads go on meanwhile.
_INSERT_SQLITE = """
INSERT INTO jobs (batch_id, line, custom_id, state, request)
SELECT ?, json_extract(value, '$[0]'), json_extract(value, '$[2]'), 'queued',
    json_extract(value, '$[1]')
FROM json_each(?)
"""
#: The same with input columns, which takes SQLite a fifth longer.
_INSERT_SQLITE_COLUMNS = """
INSERT INTO jobs (batch_id, line, custom_id, state, request, columns)
SELECT ?, json_extract(value, '$[0]'), json_extract(value, '$[2]'), 'queued',
    json_extract(value, '$[1]'), json_extract(value, '$[4]')
FROM json_each(?)
"""


def _insert(connection: Connection, batch: int, new: Sequence[NewJob]) -> None:
    bare = [job.columns for job in new].count(None) == len(new)
    statement, fields = (_INSERT_SQLITE, 3) if bare else (_INSERT_SQLITE_COLUMNS, 5)
    rows = orjson.dumps([job[:fields] for job in new]).decode()
    connection.exec_driver_sql(statement, (batch, rows))


def last_line(connection: Connection, batch: int) -> int:
    """The last line that is stored; 0 for none."""
    query = select(func.max(jobs.c.line)).where(jobs.c.batch_id == batch)
    return connection.execute(query).scalar_one() or 0


def lines_of_custom_ids(
    connection: Connection, batch: int, custom_ids: Collection[str], *, before: int
) -> dict[str, int]:
    """Which of these custom_ids the batch has already before a line, and where."""
    found = connection.execute(
        select(jobs.c.custom_id, jobs.c.line).where(
            jobs.c.batch_id == batch, jobs.c.line < before, jobs.c.custom_id.in_(custom_ids)
        )
    )
    return {row.custom_id: row.line for row in found}


def get_job(connection: Connection, uid: str, line: int) -> Job:
    """One job with its samples. Raises NotFoundError."""
    batch = get(connection, uid)
    row = connection.execute(
        select(jobs, workers.c.name.label("worker_name"), workers.c.adapters, *_PROVENANCE)
        .join(workers, workers.c.id == jobs.c.worker_id, isouter=True)
        .where(jobs.c.batch_id == batch.key, jobs.c.line == line)
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"batch {uid} has no job {line}: its jobs are 1 to {batch.total}")
    running = _running(connection, batch.key, line) if row.state == JobState.QUEUED else None
    request = loads(row.request)
    seed, params = _recipe(batch, line, request) if row.error_code != INVALID else (None, None)
    return Job(
        id=job_id(uid, line),
        batch=uid,
        line=line,
        custom_id=row.custom_id,
        state=JobState.RUNNING if running else JobState(row.state),
        attempts=row.attempts,
        worker=running.name if running else row.worker_name,
        started_at=running.claimed_at if running else row.started_at,
        finished_at=row.finished_at,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        error_code=row.error_code,
        error_message=row.error_message,
        request=request,
        samples=_samples(connection, batch.key, line),
        mode=batch.mode,
        created_at=batch.created_at,
        seed=seed,
        params=params,
        provenance=_provenance(row, params) if row.state in JOB_TERMINAL else None,
        history=attempts.history(connection, batch.key, line),
        columns=_columns(row.columns, batch),
    )


def _columns(stored: str | None, batch: Batch) -> dict[str, Any]:
    (row,) = decoded_rows([stored], batch.input_columns)
    named = zip(batch.input_columns, row or (), strict=False)
    return {
        column.name: loads(value) if column.type == JSON and value is not None else value
        for column, value in named
        if value is not ABSENT
    }


def _recipe(
    batch: Batch, line: int, request: Mapping[str, Any]
) -> tuple[int | None, dict[str, Any] | None]:
    overrides = dumps(request.get("params", {})).decode()
    recipes = Recipes(batch.id, dumps(dict(batch.params)), batch.mode)
    seed, params = recipes.of(line, overrides)
    return seed, None if params is None else loads(params)


def _provenance(row: AnyRow, params: Mapping[str, Any] | None) -> Provenance | None:
    """Of a row with its worker's columns; None where no worker has had the job."""
    if row.worker_name is None:
        return None
    values = row._asdict()
    adapter = used_adapter(row.adapters, dumps(params).decode() if params else None)
    return Provenance(
        **{column.name: values[column.name] for column in _PROVENANCE}, adapter=adapter
    )


def _running(connection: Connection, batch: int, line: int) -> AnyRow | None:
    """The leased chunk that holds this line, with its worker's name."""
    found = connection.execute(
        select(chunks.c.lines, chunks.c.claimed_at, workers.c.name)
        .join(workers, workers.c.id == chunks.c.worker_id)
        .where(
            chunks.c.batch_id == batch,
            chunks.c.state == ChunkState.RUNNING,
            chunks.c.first_line <= line,
            chunks.c.last_line >= line,
        )
    )
    return next((row for row in found if row.lines is None or line in row.lines), None)


def _samples(connection: Connection, batch: int, line: int) -> list[dict[str, Any]]:
    found = connection.execute(
        select(
            results.c.sample,
            results.c.text,
            results.c.finish_reason,
            results.c.completion_tokens,
            results.c.logprobs,
            results.c.logprob,
            results.c.embedding,
            results.c.reasoning,
            results.c.tool_calls,
        )
        .where(results.c.batch_id == batch, results.c.line == line)
        .order_by(results.c.sample)
    )
    return [
        {
            "sample": row.sample,
            "text": row.text,
            "finish_reason": row.finish_reason,
            "completion_tokens": row.completion_tokens,
            "logprobs": orjson.loads(row.logprobs) if row.logprobs else None,
            **_measured(row),
            **_beside(row),
        }
        for row in found
    ]


def _measured(row: AnyRow) -> dict[str, Any]:
    """What only a score, or only an embedding, has."""
    if row.logprob is not None:
        ratio = perplexity(row.logprob, row.completion_tokens)
        return {"logprob": row.logprob, "perplexity": ratio}
    return {} if row.embedding is None else {"embedding": list(unpack(row.embedding))}


def _beside(row: AnyRow) -> dict[str, Any]:
    """What an answer has besides its text, where it has any."""
    calls = {"tool_calls": orjson.loads(row.tool_calls)} if row.tool_calls else {}
    return calls if row.reasoning is None else {"reasoning": row.reasoning, **calls}
