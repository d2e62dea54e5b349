"""Chunks of a worker that died before the eyes of whoever keeps it go back at once.

Nobody need wait for their leases: its parent has its exit code, and the next worker that it
starts puts them back before it loads its model. Otherwise all is as with a lease that ran out.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection

from db.queries import outcomes, recovery, workers
from db.queries.recovery import Loss

logger = logging.getLogger(__name__)

_DIED = Loss("worker_lost", "the worker that ran it died (killed, out of memory, or crashed)")


def run(connection: Connection, worker: str, *, max_attempts: int) -> int:
    """Put back what the worker of this name held; how many chunks."""
    held = recovery.held_by(connection, worker)
    for chunk in held:
        unfinished, given_up = recovery.lose(connection, chunk, _DIED, max_attempts=max_attempts)
        logger.warning(
            "chunk %d was lost with %d unfinished jobs: queued again, %d given up",
            chunk.id,
            unfinished,
            given_up,
            extra={"action": "worker_died"},
        )
    outcomes.settle(connection, [chunk.batch_id for chunk in held])
    workers.bury(connection, worker)
    return len(held)
