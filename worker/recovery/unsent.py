"""Chunks that were committed but never sent are sent.

Their producer was killed between the two, could not reach Redis, or a worker handed them back.
Only our own queue: its workers are here, so its messages are worth ringing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from db.database import Database
from db.errors import BrokerUnavailable
from db.queries import chunks

logger = logging.getLogger(__name__)

#: Messages sent in one round.
_LIMIT = 1_000

Send = Callable[[list[tuple[int, str, int]]], int]


def run(database: Database, queue: str, send: Send) -> int:
    """Send what is due; how many. Raises BrokerUnavailable with all of it unsent again."""
    with database.write() as connection:
        due = chunks.take_unsent(connection, _LIMIT, queue=queue)
    if not due:
        return 0
    try:
        return send(due)
    except BrokerUnavailable:
        with database.write() as connection:
            chunks.unsend(connection, [chunk for chunk, _, _ in due])
        raise
