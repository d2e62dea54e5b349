"""Chunks whose worker fell silent go back to the queue.

Their unfinished jobs have spent an attempt. The last one that a job has it runs alone, so that
one that kills its worker dies alone; after `max_attempts` it is parked as failed, with the
diagnosis.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection

from db.queries import outcomes, recovery
from db.queries.recovery import Loss

logger = logging.getLogger(__name__)

#: Chunks put back in one round.
_LIMIT = 500

_LOST = Loss(
    "worker_lost", "the worker that ran it fell silent (killed, out of memory, or cut off)"
)


def run(connection: Connection, *, max_attempts: int) -> int:
    """Put back what expired; how many chunks."""
    expired = recovery.expired_leases(connection, _LIMIT)
    for chunk in expired:
        unfinished, given_up = recovery.lose(connection, chunk, _LOST, max_attempts=max_attempts)
        logger.warning(
            "chunk %d was lost with %d unfinished jobs: queued again, %d given up",
            chunk.id,
            unfinished,
            given_up,
            extra={"action": "lease_expired"},
        )
    outcomes.settle(connection, [chunk.batch_id for chunk in expired])
    return len(expired)
