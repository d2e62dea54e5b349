"""Chunks of a worker that died before the eyes of whoever keeps it go back at once.

Nobody need wait for their leases: its parent has its exit code, and the next worker that it
starts puts them back before it loads its model.
"""

from __future__ import annotations

from sqlalchemy import Connection

from db.queries import recovery, workers
from db.queries.recovery import Loss
from worker.recovery.losses import put_back

_DIED = Loss("worker_lost", "the worker that ran it died (killed, out of memory, or crashed)")


def run(connection: Connection, name: str, *, max_attempts: int) -> int:
    """Put back what the worker of this name held; how many chunks."""
    worker = workers.find(connection, name)
    if worker is None:  # it died before it had loaded its model
        return 0
    held = recovery.held_by(connection, worker)
    workers.stop(connection, worker)
    return put_back(connection, held, _DIED, action="worker_died", max_attempts=max_attempts)
