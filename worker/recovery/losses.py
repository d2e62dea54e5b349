"""What becomes of chunks that their worker will not finish, whoever finds that out.

Their unfinished jobs have spent an attempt. The last one that a job has it runs alone, so that
one that kills its worker dies alone; after `max_attempts` it is parked as failed, with the
diagnosis.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sqlalchemy import Connection

from db.database import AnyRow
from db.queries import outcomes, recovery
from db.queries.recovery import Loss

logger = logging.getLogger(__name__)


def put_back(
    connection: Connection, lost: Sequence[AnyRow], loss: Loss, *, action: str, max_attempts: int
) -> int:
    """Put back these locked chunks, and log each under `action`; how many."""
    for chunk in lost:
        unfinished, given_up = recovery.lose(connection, chunk, loss, max_attempts=max_attempts)
        logger.warning(
            "chunk %d was lost with %d unfinished jobs: queued again, %d given up",
            chunk.id,
            unfinished,
            given_up,
            extra={"action": action},
        )
    outcomes.settle(connection, [chunk.batch_id for chunk in lost])
    return len(lost)
