"""Leases, and whether a chunk that waits is found."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, exists, or_, select

from db.queries.audit.question import Invariant, Scope
from db.schema import batches, chunks, workers
from db.states import ChunkState

#: Heartbeats come every two seconds at most: a worker silent for so long counts as dead.
_SILENCE = 30.0
#: Seconds within which a waiting chunk must be due. The longest back-off is a minute.
_DUE_WITHIN = 600.0

_RUNNING = chunks.c.state == ChunkState.RUNNING


def inconsistent(scope: Scope) -> Select[Any]:
    token, end = chunks.c.lease_token, chunks.c.lease_expires_at
    return _chunks(scope).where(
        or_(
            _RUNNING & or_(token.is_(None), end.is_(None), chunks.c.worker_id.is_(None)),
            ~_RUNNING & or_(token.is_not(None), end.is_not(None)),
        )
    )


def overdue(scope: Scope) -> Select[Any]:
    """Leases that ended long ago, though a worker has been there to notice for as long."""
    watching = _alive(scope) & (workers.c.started_at < scope.now - scope.overdue)
    return _over(scope).where(exists().where(watching))


def never_found(scope: Scope) -> Select[Any]:
    """Queued chunks that neither a message nor an idle worker's look would lead to.

    What was not sent is found by the worker's poller, if it is in the queue and due.
    """
    return (
        _chunks(scope)
        .join(batches, batches.c.id == chunks.c.batch_id)
        .where(
            chunks.c.state == ChunkState.QUEUED,
            or_(
                chunks.c.queue != batches.c.queue,
                chunks.c.not_before > scope.now + _DUE_WITHIN,
            ),
        )
    )


def _unattended(scope: Scope) -> Select[Any]:
    return _over(scope).where(~exists().where(_alive(scope)))


#: Not in the registry: while no worker is alive nothing is put back, and nothing is promised.
UNATTENDED = Invariant(
    "overdue leases",
    "chunks of dead workers are put back by a live one, and none is alive",
    "chunk",
    _unattended,
    "start a worker",
)


def _over(scope: Scope) -> Select[Any]:
    return _chunks(scope).where(_RUNNING, chunks.c.lease_expires_at < scope.now - scope.overdue)


def _alive(scope: Scope) -> ColumnElement[bool]:
    return workers.c.stopped_at.is_(None) & (workers.c.heartbeat_at > scope.now - _SILENCE)


def _chunks(scope: Scope) -> Select[Any]:
    return select(chunks.c.batch_id, chunks.c.id.label("item")).where(
        scope.covers(chunks.c.batch_id)
    )
