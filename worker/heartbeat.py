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


class TokenRate:
    """Completion tokens a second over the last heartbeats, without the time of an idle engine."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque(maxlen=_WINDOW)

    def add(self, now: float, tokens: int, *, running: int) -> None:
        """Extend the window: `tokens` since the start, at `now` (seconds of a steady clock).

        With nothing running and no new token, it begins anew: waiting is not the engine's speed.
        """
        if not running and self._counts and self._counts[-1][1] == tokens:
            self._counts.clear()
        self._counts.append((now, tokens))

    @property
    def per_second(self) -> float:
        """0 until there are two counts."""
        (begun, before), (ended, after) = self._counts[0], self._counts[-1]
        return (after - before) / (ended - begun) if ended > begun else 0.0


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
        self._rate = TokenRate()

    def beat(self) -> float:
        """Renew; the seconds until the next beat."""
        leases = self._mill.leases()
        stats = self._engine.stats()
        self._rate.add(time.monotonic(), stats.completion_tokens, running=stats.in_flight)
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
                    "tokens_per_second": self._rate.per_second,
                },
                stops_within=self._settings.grace if self._mill.draining else None,
            )
        for chunk in leases.keys() - kept:
            self._mill.lose(chunk, leases[chunk])
        return self._settings.heartbeat_interval
