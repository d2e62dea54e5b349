"""Running batches without an open chunk are brought to their end, whatever left them so.

Nothing that promptmill does leaves one: every change of a chunk and of its batch is one
transaction. This is for what it does not do: a row that was edited by hand, a restored backup,
a bug. Open jobs get new chunks; a batch whose jobs have all ended is completed.
"""

from __future__ import annotations

import logging

from db.database import Database
from db.queries import outcomes, recovery, retries

logger = logging.getLogger(__name__)


def run(database: Database) -> int:
    """How many batches were stuck."""
    with database.read() as connection:
        stuck = recovery.without_chunks(connection)
    for batch in stuck:
        with database.write() as connection:
            homeless = retries.rehome(connection, batch)
            outcomes.settle(connection, [batch])
        logger.error(
            "a batch had no chunk to run and %d open jobs: queued again",
            homeless,
            extra={"action": "stray", "batch": batch},
        )
    return len(stuck)
