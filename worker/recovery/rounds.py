"""A round of recovery: every concern once, by one worker of all at a time."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

from db.database import Database
from db.queries import recovery
from db.settings import Settings
from worker.pulse import RETRY
from worker.recovery import cancels, deadlines, leases, strays, submissions, unsent
from worker.recovery.unsent import Send


class Silence:
    """Whether the database was away a moment ago.

    Then nobody could renew a lease, and whoever looks first would take the chunks of workers that
    live: they get the time to speak first.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._longest = settings.lease / 2 + settings.recovery_interval
        self._patience = 2 * settings.heartbeat_interval + RETRY
        self._clock = clock
        self._heard_at = clock()
        self._until = -math.inf

    def ends_now(self) -> bool:
        """The database answers: whether it did not until a moment ago."""
        now = self._clock()
        if now - self._heard_at > self._longest:
            self._until = now + self._patience
        self._heard_at = now
        return now < self._until


class Recovery:
    """Runs rounds; `round` fits a Pulse."""

    def __init__(self, settings: Settings, database: Database, queue: str, send: Send) -> None:
        self._settings = settings
        self._database = database
        self._queue = queue
        self._send = send
        self._silence = Silence(settings)

    def round(self) -> float:
        """One round; the seconds until the next, spread so that workers don't march in step."""
        # A transaction each: one that holds a batch must not go on to lock another one's chunks.
        with self._database.write() as connection:
            if not self._silence.ends_now() and recovery.try_lock(connection):
                leases.run(connection, max_attempts=self._settings.max_attempts)
        cancels.run(self._database)
        deadlines.run(self._database)
        strays.run(self._database)
        submissions.run(self._database)
        unsent.run(self._database, self._queue, self._send)
        return self._settings.recovery_interval * random.uniform(0.8, 1.2)  # noqa: S311
