"""A batch's life: created, filled, activated, found, deleted. What users do to it meanwhile is in
`db.queries.steering`.

Everyone locks in one order, chunks, then jobs, then the batch, so that nobody deadlocks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from db.clock import db_now
from db.database import AnyRow
from db.errors import ConflictError, NotFoundError
from db.input_columns import InputColumn, header_of, stored_header
from db.modes import Mode
from db.plan import chunk_ranges, full_chunk
from db.records import Batch
from db.sample_counts import COUNTERS, SampleCounts
from db.schema import batches, chunks
from db.states import (
    BATCH_TERMINAL,
    BatchState,
    ChunkState,
    require,
)

#: Rows of one slice of a long change: seconds of lock at most.
SLICE = 10_000

#: The size of a batch's chunks until it is filled, where nobody says.
_UNDECIDED = 0

_COLUMNS = (
    batches.c.id, batches.c.uid, batches.c.name, batches.c.model, batches.c.queue,
    batches.c.state, batches.c.priority, batches.c.params, batches.c.metadata, batches.c.total,
    batches.c.succeeded, batches.c.failed, batches.c.cancelled, batches.c.expired,
    batches.c.prompt_tokens, batches.c.completion_tokens, batches.c.created_at,
    batches.c.started_at, batches.c.finished_at, batches.c.digest, batches.c.expires_at,
    batches.c.mode, batches.c.columns, *(batches.c[name] for name in COUNTERS),
)  # fmt: skip


def create(
    connection: Connection,
    *,
    uid: str,
    name: str | None,
    model: str,
    queue: str,
    priority: int,
    params: Mapping[str, Any],
    metadata: Mapping[str, str],
    chunk_size: int | None,
    mode: Mode = Mode.GENERATE,
) -> int:
    """A batch in `validating`, to be filled and activated; its key.

    With no `chunk_size` given, its number of jobs decides.
    """
    statement = insert(batches).values(
        uid=uid,
        name=name,
        model=model,
        queue=queue,
        state=BatchState.VALIDATING,
        priority=priority,
        params=dict(params),
        metadata=dict(metadata),
        chunk_size=chunk_size or _UNDECIDED,
        mode=mode,
        created_at=db_now(),
        touched_at=db_now(),
    )
    return int(connection.execute(statement.returning(batches.c.id)).scalar_one())


def activate(
    connection: Connection,
    key: int,
    *,
    total: int,
    failed: int,
    digest: str,
    idempotency_key: str | None,
    expires_after: float | None = None,
    input_columns: Sequence[InputColumn] = (),
) -> None:
    """Open a filled batch to workers: its chunks appear in the same transaction.

    `failed` of the `total` lines were invalid and are failed jobs already. Raises ConflictError
    where another batch took the same idempotency key meanwhile. What is unfinished in
    `expires_after` seconds expires. `input_columns`: the header of the jobs' `columns`.
    """
    row = connection.execute(
        select(
            batches.c.uid,
            batches.c.queue,
            batches.c.priority,
            batches.c.chunk_size,
            batches.c.state,
        )
        .where(batches.c.id == key)
        .with_for_update()
    ).one()
    empty = failed == total
    target = BatchState.COMPLETED if empty else BatchState.QUEUED
    require(row.uid, BatchState(row.state), target)
    values: dict[str, Any] = {
        "state": target,
        "total": total,
        "failed": failed,
        "chunk_size": row.chunk_size or full_chunk(total),
        "digest": digest,
        "columns": stored_header(input_columns),
        "idempotency_key": idempotency_key,
        "touched_at": db_now(),
    }
    if empty:
        values["finished_at"] = db_now()
    if expires_after is not None:
        values["expires_at"] = db_now() + expires_after
    try:
        connection.execute(update(batches).where(batches.c.id == key).values(values))
    except IntegrityError:
        raise ConflictError(f"idempotency key '{idempotency_key}' is taken") from None
    if not empty:
        _plan(connection, key, row, chunk_ranges(total, values["chunk_size"]))


def _plan(connection: Connection, key: int, row: AnyRow, ranges: Iterable[tuple[int, int]]) -> None:
    common = {
        "batch_id": key,
        "queue": row.queue,
        "priority": row.priority,
        "state": ChunkState.QUEUED,
    }
    rows: list[dict[str, Any]] = []
    for first, last in ranges:
        rows.append({**common, "first_line": first, "last_line": last})
        if len(rows) == SLICE:
            connection.execute(insert(chunks), rows)
            rows.clear()
    if rows:
        connection.execute(insert(chunks), rows)


def get(connection: Connection, uid: str) -> Batch:
    """One row read, however large the batch. Raises NotFoundError."""
    row = connection.execute(select(*_COLUMNS).where(batches.c.uid == uid)).one_or_none()
    if row is None:
        raise NotFoundError(f"no batch {uid}: 'promptmill list' shows the batches that there are")
    return _batch(row)


def locked(connection: Connection, batch: Batch) -> Batch:
    """The batch as it is now and stays until this transaction ends. Raises NotFoundError.

    Last in the order of locks: take chunks and jobs before.
    """
    query = select(*_COLUMNS).where(batches.c.id == batch.key).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(f"batch {batch.id} has just been deleted")
    return _batch(row)


def find(
    connection: Connection, *, idempotency_key: str | None = None, name: str | None = None
) -> list[Batch]:
    """Batches that hold this key, or that were submitted under this name; newest first."""
    query = select(*_COLUMNS).where(batches.c.state != BatchState.VALIDATING)
    if idempotency_key is not None:
        query = query.where(batches.c.idempotency_key == idempotency_key)
    if name is not None:
        query = query.where(batches.c.name == name)
    return [_batch(row) for row in connection.execute(query.order_by(batches.c.id.desc()))]


def named(connection: Connection, name: str, limit: int) -> tuple[list[Batch], int]:
    """Up to `limit` batches of exactly this name, newest first; and how many there are."""
    same = batches.c.name == name
    query = select(*_COLUMNS).where(same).order_by(batches.c.id.desc()).limit(limit)
    found = [_batch(row) for row in connection.execute(query)]
    if len(found) < limit:
        return found, len(found)
    count = connection.execute(select(func.count()).select_from(batches).where(same)).scalar_one()
    return found, int(count)


def newest(
    connection: Connection,
    limit: int,
    before: int | None = None,
    *,
    states: Collection[BatchState] = (),
    model: str | None = None,
    name: str | None = None,
    within: float | None = None,
) -> list[Batch]:
    """Up to `limit` batches, newest first, older than the batch of key `before`.

    `states`: in one of these. `model` and `name`: a part of it in any case, or all of it as a
    pattern with `*` and `?`. `within`: created in the last `within` seconds.
    """
    query = select(*_COLUMNS).order_by(batches.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(batches.c.id < before)
    if states:
        query = query.where(batches.c.state.in_(states))
    if model is not None:
        query = query.where(batches.c.model.ilike(_like(model), escape="\\"))
    if name is not None:
        query = query.where(batches.c.name.ilike(_like(name), escape="\\"))
    if within is not None:
        query = query.where(batches.c.created_at > db_now() - within)
    return [_batch(row) for row in connection.execute(query)]


def _like(pattern: str) -> str:
    """A pattern with `*` and `?` in the words of LIKE; without them, a part of the text."""
    plain = re.sub(r"([\\%_])", r"\\\1", pattern)
    if not re.search(r"[*?]", pattern):
        return f"%{plain}%"
    return plain.replace("*", "%").replace("?", "_")


def require_deletable(connection: Connection, uid: str) -> Batch:
    """The batch, if deleting it takes nothing from a worker. Raises ConflictError."""
    batch = get(connection, uid)
    if not (batch.state in BATCH_TERMINAL or batch.state == BatchState.VALIDATING):
        raise ConflictError(f"batch {uid} is {batch.state}: 'promptmill cancel {uid}' first")
    return batch


def touch(connection: Connection, key: int) -> None:
    """Say that the producer of a validating batch is alive."""
    connection.execute(
        update(batches).where(batches.c.id == bindparam("key")).values(touched_at=db_now()),
        {"key": key},
    )


def _batch(row: AnyRow) -> Batch:
    values = row._asdict()
    return Batch(
        key=values.pop("id"),
        id=values.pop("uid"),
        state=BatchState(values.pop("state")),
        mode=Mode(values.pop("mode")),
        input_columns=header_of(values.pop("columns")),
        sample_counts=SampleCounts(*(values.pop(name) for name in COUNTERS)),
        **values,
    )
