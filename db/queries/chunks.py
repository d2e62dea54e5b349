"""A chunk's life: claimed under a lease, kept by heartbeats, finished, released or lost."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    func,
    literal,
    select,
    tuple_,
    update,
)

from db.clock import db_now
from db.database import AnyRow
from db.modes import Mode
from db.records import Claim, ClaimedJob
from db.schema import batches, chunks, jobs
from db.states import BatchState, ChunkState, JobState

_CLAIMED = (
    chunks.c.id, chunks.c.batch_id, chunks.c.first_line, chunks.c.last_line, chunks.c.lines,
)  # fmt: skip


def lock(connection: Connection, ids: Collection[int]) -> None:
    """Lock these chunks until the transaction ends, in the order of everyone: that of their ids.

    An UPDATE of several rows locks them as it finds them; two that meet would deadlock.
    """
    _lock(connection, chunks.c.id.in_(ids))


def lock_open(connection: Connection, batch_keys: Collection[int]) -> None:
    """As `lock`, for whatever is not done of these batches."""
    _lock(connection, chunks.c.batch_id.in_(batch_keys) & (chunks.c.state != ChunkState.DONE))


def _lock(connection: Connection, which: ColumnElement[bool]) -> None:
    if connection.dialect.name == "postgresql":
        query = select(chunks.c.id).where(which).order_by(chunks.c.id)
        connection.execute(query.with_for_update())


# Written once: to put a statement together takes longer than to run it.

_WAITS = and_(chunks.c.state == ChunkState.QUEUED, chunks.c.not_before <= db_now())

_NEXT = (
    select(chunks.c.id)
    .where(chunks.c.queue == bindparam("queue"), _WAITS)
    .order_by(chunks.c.priority.desc(), chunks.c.id)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_NEXT_OF_BATCH = _NEXT.where(chunks.c.batch_id == bindparam("batch"))

_TAKE = (
    update(chunks)
    .where(chunks.c.id == bindparam("chunk"), _WAITS)
    .values(
        state=ChunkState.RUNNING,
        worker_id=bindparam("worker"),
        lease_token=bindparam("token"),
        lease_expires_at=db_now() + bindparam("lease"),
        claimed_at=db_now(),
    )
    .returning(*_CLAIMED)
)

_BATCH = select(
    batches.c.uid,
    batches.c.params,
    batches.c.state,
    batches.c.mode,
    batches.c.created_at,
    db_now().label("now"),
).where(batches.c.id == bindparam("batch"))

_UNFINISHED = (
    select(jobs.c.line, jobs.c.request, jobs.c.attempts)
    .where(jobs.c.batch_id == bindparam("batch"), jobs.c.state == JobState.QUEUED)
    .order_by(jobs.c.line)
)
_UNFINISHED_BETWEEN = _UNFINISHED.where(jobs.c.line.between(bindparam("first"), bindparam("last")))
_UNFINISHED_OF = _UNFINISHED.where(jobs.c.line.in_(bindparam("lines", expanding=True)))


def claim(connection: Connection, chunk: int, *, worker: int, lease: float) -> Claim | None:
    """Take this chunk under a lease; None where it is not to be had (any more)."""
    token = secrets.token_hex(16)
    row = connection.execute(
        _TAKE, {"chunk": chunk, "worker": worker, "token": token, "lease": lease}
    ).one_or_none()
    if row is None:
        return None
    batch = connection.execute(_BATCH, {"batch": row.batch_id}).one()
    if batch.state == BatchState.QUEUED:
        connection.execute(
            update(batches)
            .where(batches.c.id == row.batch_id, batches.c.state == BatchState.QUEUED)
            .values(state=BatchState.IN_PROGRESS, started_at=db_now())
        )
    return Claim(
        chunk=row.id,
        batch=row.batch_id,
        batch_uid=batch.uid,
        token=token,
        params=batch.params,
        jobs=_unfinished(connection, row),
        now=batch.now,
        mode=Mode(batch.mode),
        created_at=batch.created_at,
    )


def claim_next(
    connection: Connection, queue: str, *, worker: int, lease: float, batch: int | None = None
) -> Claim | None:
    """Take the most urgent chunk of a queue, message or no message; None where none waits.

    Of one batch only, if a `batch` (key) is given.
    """
    if batch is None:
        found = connection.execute(_NEXT, {"queue": queue}).scalar_one_or_none()
    else:
        wanted = {"queue": queue, "batch": batch}
        found = connection.execute(_NEXT_OF_BATCH, wanted).scalar_one_or_none()
    return None if found is None else claim(connection, found, worker=worker, lease=lease)


def _unfinished(connection: Connection, row: AnyRow) -> tuple[ClaimedJob, ...]:
    if row.lines is None:
        statement, lines = _UNFINISHED_BETWEEN, {"first": row.first_line, "last": row.last_line}
    else:
        statement, lines = _UNFINISHED_OF, {"lines": row.lines}
    found = connection.execute(statement, {"batch": row.batch_id, **lines})
    return tuple(map(ClaimedJob._make, found))


def lines_of(row: AnyRow) -> ColumnElement[bool]:
    """The jobs that a chunk row covers, as a condition."""
    if row.lines is not None:
        return and_(jobs.c.batch_id == row.batch_id, jobs.c.line.in_(row.lines))
    return and_(jobs.c.batch_id == row.batch_id, jobs.c.line.between(row.first_line, row.last_line))


def renew(connection: Connection, tokens: Mapping[int, str], *, lease: float) -> Collection[int]:
    """Heartbeat: prolong these leases (chunk → token); the chunks that are still ours."""
    if not tokens:
        return ()
    lock(connection, tokens)
    kept = connection.execute(
        update(chunks)
        .where(
            chunks.c.id.in_(tokens),
            chunks.c.lease_token.in_(tokens.values()),
            chunks.c.state == ChunkState.RUNNING,
        )
        .values(lease_expires_at=db_now() + lease)
        .returning(chunks.c.id)
    )
    return {row.id for row in kept}


def release(connection: Connection, chunk: int, token: str, *, delay: float = 0.0) -> bool:
    """Hand a chunk back, whatever of it is unfinished; whether it was still ours.

    With a `delay` (seconds) it may be claimed only later. Of a paused batch it is held.
    """
    paused = (
        select(literal(1))
        .where(batches.c.id == chunks.c.batch_id, batches.c.state == BatchState.PAUSED)
        .exists()
    )
    released = connection.execute(
        update(chunks)
        .where(
            chunks.c.id == chunk,
            chunks.c.lease_token == token,
            chunks.c.state == ChunkState.RUNNING,
        )
        .values(
            state=case((paused, ChunkState.HELD), else_=ChunkState.QUEUED),
            lease_token=None,
            lease_expires_at=None,
            worker_id=None,
            not_before=db_now() + delay,
            sent_at=None,
        )
    )
    return released.rowcount == 1


def finish(connection: Connection, tokens: Mapping[int, str]) -> int:
    """Every job of these chunks (id → token) is terminal; how many of them were still ours."""
    finished = connection.execute(
        update(chunks)
        .where(
            tuple_(chunks.c.id, chunks.c.lease_token).in_(sorted(tokens.items())),
            chunks.c.state == ChunkState.RUNNING,
        )
        .values(state=ChunkState.DONE, lease_token=None, lease_expires_at=None)
    )
    return finished.rowcount


def take_unsent(
    connection: Connection, limit: int, *, queue: str | None = None, batch: int | None = None
) -> list[tuple[int, str, int]]:
    """Up to `limit` due chunks whose message never went out: (id, queue, priority).

    They count as sent from here on. A sender that dies before it sends loses messages, not
    work: an idle worker claims from the database.
    """
    wanted = [
        chunks.c.state == ChunkState.QUEUED,
        chunks.c.sent_at.is_(None),
        chunks.c.not_before <= db_now(),
    ]
    if queue is not None:
        wanted.append(chunks.c.queue == queue)
    if batch is not None:
        wanted.append(chunks.c.batch_id == batch)
    due = (
        select(chunks.c.id)
        .where(*wanted)
        .order_by(chunks.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = list(connection.execute(due).scalars())
    if not ids:
        return []
    taken = connection.execute(
        update(chunks)
        .where(chunks.c.id.in_(ids), chunks.c.sent_at.is_(None))
        .values(sent_at=db_now())
        .returning(chunks.c.id, chunks.c.queue, chunks.c.priority)
    )
    return sorted((row.id, row.queue, row.priority) for row in taken)


def unsend(connection: Connection, ids: Collection[int]) -> None:
    """These messages did not go out after all."""
    connection.execute(update(chunks).where(chunks.c.id.in_(ids)).values(sent_at=None))


def waiting(connection: Connection) -> list[tuple[str, str, int]]:
    """Queue, model and number of chunks that wait, for each queue where some do."""
    found = connection.execute(
        select(chunks.c.queue, batches.c.model, func.count())
        .join(batches, batches.c.id == chunks.c.batch_id)
        .where(chunks.c.state == ChunkState.QUEUED)
        .group_by(chunks.c.queue, batches.c.model)
        .order_by(chunks.c.queue)
    )
    return [(row[0], row[1], row[2]) for row in found]
