"""Submissions whose producer died are swept away: nothing of them was ever queued."""

from __future__ import annotations

import logging

from db.database import Database
from db.queries import recovery
from db.queries.deletion import delete_batch

logger = logging.getLogger(__name__)

#: Seconds without a sign of life. A live producer writes every few seconds.
_STALE = 600.0


def run(database: Database) -> int:
    """Delete them, slice by slice; how many."""
    with database.read() as connection:
        stale = recovery.stale_submissions(connection, _STALE)
    for key in stale:
        logger.info("sweeping a submission that died", extra={"action": "sweep"})
        delete_batch(database, key)
    return len(stale)
