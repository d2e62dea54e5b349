"""Locks of a worker or a producer that stands still in the middle of a transaction are freed.

Not a part of the rounds: they may be what waits for these locks.
"""

from __future__ import annotations

import logging

from db.database import Database
from db.queries import sessions
from db.settings import Settings
from db.wording import count_of

logger = logging.getLogger(__name__)


class Sessions:
    """Looks after the sessions of all; `look` fits a Pulse."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    def look(self) -> float:
        """End the silent ones; the seconds until the next look."""
        with self._database.read() as connection:
            ended = sessions.end_silent(connection, self._settings.silence)
        if ended:
            logger.warning(
                "ended %s that stood still in a transaction",
                count_of(ended, "session"),
                extra={"action": "session_ends"},
            )
        return self._settings.recovery_interval
