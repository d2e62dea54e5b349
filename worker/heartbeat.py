"""The heartbeat: keep the leases, hear of lost ones, say how the worker fares."""

from __future__ import annotations

import time
from collections import deque

from db.database import Database
from db.queries import chunks as chunk_queries
from db.queries import workers as worker_queries
from db.settings import Settings
from worker.engine.protocol import Engine
from worker.mill import Mill

#: Heartbeats over which the rate is taken.
_WINDOW = 6


class Heartbeat:
    """One beat renews every lease of this worker in one statement."""

    def __init__(
        self, settings: Settings, database: Database, engine: Engine, mill: Mill, *, worker: int
    ) -> None:
        self._settings = settings
        self._database = database
        self._engine = engine
        self._mill = mill
        self._worker = worker
        self._tokens: deque[tuple[float, int]] = deque(maxlen=_WINDOW)

    def beat(self) -> float:
        """Renew; the seconds until the next beat."""
        leases = self._mill.leases()
        stats = self._engine.stats()
        self._tokens.append((time.monotonic(), stats.completion_tokens))
        with self._database.write() as connection:
            kept = set(chunk_queries.renew(connection, leases, lease=self._settings.lease))
            worker_queries.beat(
                connection,
                self._worker,
                {
                    "jobs": self._mill.flusher.jobs_written,
                    "in_flight": stats.in_flight,
                    "prompt_tokens": stats.prompt_tokens,
                    "completion_tokens": stats.completion_tokens,
                    "tokens_per_second": self._rate(),
                },
            )
        for chunk in leases.keys() - kept:
            self._mill.lose(chunk, leases[chunk])
        return self._settings.heartbeat_interval

    def _rate(self) -> float:
        """Completion tokens a second over the window."""
        (begun, before), (ended, after) = self._tokens[0], self._tokens[-1]
        return (after - before) / (ended - begun) if ended > begun else 0.0
