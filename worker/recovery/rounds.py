"""A round of recovery: every concern once, by one worker of all at a time."""

from __future__ import annotations

import random

from db.database import Database
from db.queries import recovery
from db.settings import Settings
from worker.recovery import cancels, deadlines, leases, strays, submissions, unsent
from worker.recovery.unsent import Send


class Recovery:
    """Runs rounds; `round` fits a Pulse."""

    def __init__(self, settings: Settings, database: Database, queue: str, send: Send) -> None:
        self._settings = settings
        self._database = database
        self._queue = queue
        self._send = send

    def round(self) -> float:
        """One round; the seconds until the next, spread so that workers don't march in step."""
        # A transaction each: one that holds a batch must not go on to lock another one's chunks.
        with self._database.write() as connection:
            if recovery.try_lock(connection):
                leases.run(connection, max_attempts=self._settings.max_attempts)
        with self._database.write() as connection:
            if recovery.try_lock(connection):
                cancels.run(connection)
        deadlines.run(self._database)
        strays.run(self._database)
        submissions.run(self._database)
        unsent.run(self._database, self._queue, self._send)
        return self._settings.recovery_interval * random.uniform(0.8, 1.2)  # noqa: S311
