"""The watchdog: an engine that hangs, or is broken for good, takes its worker with it, and not its
jobs.

A thread that is stuck in a kernel can't be stopped, so the process ends: its chunks go back with
an attempt spent, and whoever keeps the worker starts it again. A prompt that hangs every time
runs alone in the end, like any other that breaks its worker, and is parked.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from db.database import Database
from db.errors import DatabaseError
from db.queries import chunks, recovery, workers
from db.queries.recovery import Loss
from db.settings import Settings
from worker.engine.protocol import Engine
from worker.mill import Mill
from worker.recovery.losses import put_back

logger = logging.getLogger(__name__)

#: The exit code of a worker whose engine hung (EX_TEMPFAIL): start it again.
STALLED = 75


class Watchdog:
    """Looks at the engine; `look` fits a Pulse."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        engine: Engine,
        mill: Mill,
        *,
        worker: int,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        """`leave` ends the process at once, with an exit code."""
        self._limit = settings.stall_timeout
        self._max_attempts = settings.max_attempts
        self._database = database
        self._engine = engine
        self._mill = mill
        self._worker = worker
        self._leave = leave

    def look(self) -> float:
        """Leave if the engine is silent for too long, or broken; else the seconds until the next
        look."""
        stats = self._engine.stats()
        if stats.broken is not None:
            loss, what = Loss("engine_error", stats.broken), stats.broken
            action = "engine_broken"
        elif stats.stalled_for < self._limit:
            return max(0.1, min(5.0, (self._limit - stats.stalled_for) / 2))
        else:
            loss = Loss("engine_stalled", f"the engine made no token for {self._limit:g} s")
            action = "stall"
            what = f"the engine has made no token for {stats.stalled_for:.0f} s"
        logger.error("%s: this worker ends, its chunks go back", what, extra={"action": action})
        try:
            self._give_back(loss, action)
        except DatabaseError as error:
            # Then their leases run out.
            logger.error("could not hand back: %s", error.message, extra={"action": "release"})
        self._leave(STALLED)
        return self._limit

    def _give_back(self, loss: Loss, action: str) -> None:
        """As recovery does with the chunks of a dead worker, at once and with the true reason."""
        leases = self._mill.leases()
        with self._database.write() as connection:
            chunks.lock(connection, leases)
            lost = recovery.leased(connection, leases)
            put_back(connection, lost, loss, action=action, max_attempts=self._max_attempts)
        with self._database.write() as connection:
            workers.stop(connection, self._worker)
