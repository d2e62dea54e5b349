"""Chunks whose worker fell silent go back to the queue."""

from __future__ import annotations

from sqlalchemy import Connection

from db.queries import recovery
from db.queries.recovery import Loss
from worker.recovery.losses import put_back

#: Chunks put back in one round.
_LIMIT = 500

_LOST = Loss(
    "worker_lost", "the worker that ran it fell silent (killed, out of memory, or cut off)"
)


def run(connection: Connection, *, max_attempts: int) -> int:
    """Put back what expired; how many chunks."""
    expired = recovery.expired_leases(connection, _LIMIT)
    return put_back(connection, expired, _LOST, action="lease_expired", max_attempts=max_attempts)
