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
from db.wording import count_of

logger = logging.getLogger(__name__)

#: Chunks that the log names, at most.
_NAMED = 20


def put_back(
    connection: Connection, lost: Sequence[AnyRow], loss: Loss, *, action: str, max_attempts: int
) -> int:
    """Put back these locked chunks, and log them together under `action`; how many."""
    unfinished = given_up = 0
    for chunk in lost:
        counts = recovery.lose(connection, chunk, loss, max_attempts=max_attempts)
        unfinished, given_up = unfinished + counts[0], given_up + counts[1]
    if lost:
        logger.warning(
            "%s lost with %s: queued again, %d given up",
            f"chunk {lost[0].id} was" if len(lost) == 1 else f"{len(lost)} chunks were",
            count_of(unfinished, "unfinished job"),
            given_up,
            extra={"action": action, "chunks": ",".join(str(chunk.id) for chunk in lost[:_NAMED])},
        )
    outcomes.settle(connection, [chunk.batch_id for chunk in lost])
    return len(lost)
