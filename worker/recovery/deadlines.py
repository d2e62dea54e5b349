"""Batches past their deadline end: open jobs expire, finished ones stay."""

from __future__ import annotations

import logging

from db.database import Database
from db.queries import recovery, steering

logger = logging.getLogger(__name__)


def run(database: Database) -> int:
    """How many jobs expired."""
    with database.read() as connection:
        overdue = recovery.overdue(connection)
    count = 0
    for key in overdue:
        with database.write() as connection:
            expired = steering.expire(connection, key)
        if expired:
            logger.info("%d jobs expired with their batch", expired, extra={"action": "expire"})
        count += expired
    return count
