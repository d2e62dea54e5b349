"""Many rows in one statement: they travel as one JSON text, and the database takes it apart.

A round trip however many rows there are; no Python a value, as arrays of the driver's need; and on
SQLite one long step, in which Python's other threads go on.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import NamedTuple

import orjson
from sqlalchemy import Connection

from db.clock import POSTGRESQL_NOW, SQLITE_NOW


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
    text: str | None
    finish_reason: str | None
    completion_tokens: int
    logprobs: str | None
    logprob: float | None = None
    embedding: bytes | None = None
    reasoning: str | None = None
    tool_calls: str | None = None


#: PostgreSQL's types of the fields of a row; SQLite takes those that JSON has.
_ATTEMPT_TYPES = ("bigint", "integer", "text", "float8", "integer", "integer", "text", "text")
_RESULT_TYPES = (
    "bigint", "integer", "integer", "text", "text", "integer", "text", "float8", "bytea",
    "text", "text",
)  # fmt: skip


def _postgresql_rows(fields: Sequence[str], types: Sequence[str]) -> str:
    columns = [
        f"{_read(place, type_)} AS {name}"
        for place, (name, type_) in enumerate(zip(fields, types, strict=True))
    ]
    return f"SELECT {', '.join(columns)} FROM json_array_elements(%(rows)s::json) AS row"


def _read(place: int, type_: str) -> str:
    """JSON has no bytes: they come in base64."""
    text = f"row ->> {place}"
    return f"decode({text}, 'base64')" if type_ == "bytea" else f"({text})::{type_}"


def _sqlite_rows(fields: Sequence[str]) -> str:
    columns = [f"json_extract(value, '$[{n}]') AS {name}" for n, name in enumerate(fields)]
    return f"SELECT {', '.join(columns)} FROM json_each(?)"


_CHANGES = """
    state = given.state,
    attempts = jobs.attempts + 1,
    worker_id = {worker},
    started_at = given.started_at,
    finished_at = CASE WHEN given.state <> 'queued' THEN {now} END,
    prompt_tokens = given.prompt_tokens,
    completion_tokens = given.completion_tokens,
    error_code = given.error_code,
    error_message = given.error_message
"""

_END_POSTGRESQL = f"""
WITH given AS MATERIALIZED (
    {_postgresql_rows(EndedAttempt._fields, _ATTEMPT_TYPES)}
), open AS (
    SELECT jobs.batch_id, jobs.line
    FROM jobs JOIN given ON jobs.batch_id = given.batch_id AND jobs.line = given.line
    WHERE jobs.state = 'queued'
    ORDER BY jobs.batch_id, jobs.line
    FOR UPDATE OF jobs
)
UPDATE jobs SET {_CHANGES.format(worker="%(worker)s", now=POSTGRESQL_NOW)}
FROM given JOIN open ON open.batch_id = given.batch_id AND open.line = given.line
WHERE jobs.batch_id = given.batch_id AND jobs.line = given.line
RETURNING jobs.batch_id, jobs.line
"""

# A writer on SQLite is alone: there is nothing to lock.
_END_SQLITE = f"""
UPDATE jobs SET {_CHANGES.format(worker="?", now=SQLITE_NOW)}
FROM ({_sqlite_rows(EndedAttempt._fields)}) AS given
WHERE jobs.batch_id = given.batch_id AND jobs.line = given.line AND jobs.state = 'queued'
RETURNING batch_id, line
"""

_INSERT = f"INSERT INTO results ({', '.join(Result._fields)}) "
_INSERT_POSTGRESQL = _INSERT + _postgresql_rows(Result._fields, _RESULT_TYPES)
_INSERT_SQLITE = _INSERT + _sqlite_rows(Result._fields)
#: A statement a row: SQLite reads no base64.
_INSERT_SQLITE_BYTES = f"{_INSERT} VALUES ({', '.join('?' * len(Result._fields))})"


def end_attempts(
    connection: Connection, rows: Sequence[EndedAttempt], *, worker: int
) -> set[tuple[int, int]]:
    """Write those whose job is still queued, locking jobs in their order; (batch, line) of them.

    No job may come twice.
    """
    if not rows:
        return set()
    if connection.dialect.name == "postgresql":
        values = {"rows": _json(rows), "worker": worker}
        found = connection.exec_driver_sql(_END_POSTGRESQL, values)
    else:
        found = connection.exec_driver_sql(_END_SQLITE, (worker, _json(rows)))
    return {(row[0], row[1]) for row in found}


def insert_results(connection: Connection, rows: Sequence[Result]) -> None:
    """Store them. Raises through SQLAlchemy where a sample is there already."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_INSERT_POSTGRESQL, {"rows": _json(rows)})
        return
    plain = [row for row in rows if row.embedding is None]
    if plain:
        connection.exec_driver_sql(_INSERT_SQLITE, (_json(plain),))
    if len(plain) < len(rows):
        packed = [tuple(row) for row in rows if row.embedding is not None]
        connection.exec_driver_sql(_INSERT_SQLITE_BYTES, packed)


def _json(rows: Sequence[EndedAttempt] | Sequence[Result]) -> str:
    """A list of lists. orjson takes no tuple that has names, and no bytes."""
    return orjson.dumps([tuple(row) for row in rows], default=_in_base64).decode()


def _in_base64(value: bytes) -> str:
    return b64encode(value).decode()
