"""Write outcomes as they come, in bulk: many jobs of many chunks in one transaction.

A killed worker loses what waits here: a fraction of a second. The queue is bounded; where the
database is away it fills, the engine's answers wait, and nothing grows.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from db.database import Database
from db.errors import DatabaseError, ValueRefused
from db.queries import chunks as chunk_queries
from db.queries import outcomes as outcome_queries
from db.queries import recovery as recovery_queries
from db.queries.outcomes import JobOutcome
from db.states import JobState
from worker.requests import backoff, storable
from worker.run import Ending, Run

logger = logging.getLogger(__name__)

#: Outcomes written in one transaction at most.
_BATCH = 1_000
#: Outcomes that may wait, by and large: threads that look at once may all find room.
_BOUND = 10_000
#: Seconds that the end of a run waits for those of others.
_SOON = 0.02
#: Seconds between two tries while the database is away.
_RETRY = 2.0
#: Seconds between two looks for room.
_LOOK = 0.02


@dataclass(frozen=True, slots=True)
class _Close:
    """Nothing more comes of this run: write its end."""

    run: Run
    ending: Ending

    @property
    def done(self) -> bool:
        """Whether nothing of the chunk is left to do."""
        return self.ending is Ending.WRITTEN and self.run.finished


class Flusher:
    """One thread between the engine and the database."""

    def __init__(
        self,
        database: Database,
        *,
        worker: int,
        interval: float,
        max_attempts: int,
        on_ended: Callable[[Run], None],
    ) -> None:
        self._database = database
        self._worker = worker
        self._interval = interval
        self._max_attempts = max_attempts
        self._on_ended = on_ended
        self._items: queue.SimpleQueue[JobOutcome | _Close | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="flusher", daemon=True)
        self._giving_up = threading.Event()
        self.jobs_written = 0

    def start(self) -> None:
        self._thread.start()

    def put(self, outcome: JobOutcome) -> None:
        """Take an outcome; blocks while too many wait. After a stop that gave up it is dropped."""
        while self._items.qsize() >= _BOUND:
            if self._giving_up.wait(_LOOK):
                return
        self._items.put(outcome)

    def close_run(self, run: Run, ending: Ending) -> None:
        """The run's last word, after all its outcomes. Waits for no room: a shutdown must not."""
        self._items.put(_Close(run, ending))

    def stop(self, timeout: float) -> None:
        """Write what waits, for `timeout` seconds at most, then end."""
        self._items.put(None)
        self._thread.join(timeout)
        self._giving_up.set()

    def _loop(self) -> None:
        running = True
        while running:
            outcomes, closes, running = self._gather()
            if outcomes or closes:
                self._persist(outcomes, closes)

    def _gather(self) -> tuple[list[JobOutcome], list[_Close], bool]:
        """What came within one interval: outcomes, closed runs, and whether to go on.

        The end of a run does not wait for the interval, as a slot waits for it: only for others
        that end at about the same time.
        """
        outcomes: list[JobOutcome] = []
        closes: list[_Close] = []
        deadline: float | None = None
        while len(outcomes) < _BATCH:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                item = self._items.get(timeout=left)
            except queue.Empty:
                break
            if item is None:
                return outcomes, closes, False
            if isinstance(item, _Close):
                closes.append(item)
                soon = time.monotonic() + _SOON
                deadline = soon if deadline is None else min(deadline, soon)
            else:
                outcomes.append(item)
                deadline = deadline or time.monotonic() + self._interval
        return outcomes, closes, True

    def _persist(self, outcomes: list[JobOutcome], closes: list[_Close]) -> None:
        """Write, and go on trying while the database is away; only a stop gives up."""
        complained = False
        while True:
            try:
                self._write_apart(outcomes, closes)
                break
            except DatabaseError as error:
                if not complained:
                    logger.warning(
                        "results wait: %s", error.message, extra={"action": "flush_waits"}
                    )
                    complained = True
                if self._giving_up.wait(_RETRY):
                    break
        if complained:
            logger.info("the database is back", extra={"action": "flush_resumes"})
        for close in closes:
            close.run.end(close.ending)
            self._on_ended(close.run)

    def _write_apart(self, outcomes: list[JobOutcome], closes: list[_Close]) -> None:
        """Write together if possible; a value that the database refuses fails its job alone."""
        try:
            self._write(outcomes, closes)
        except ValueRefused as error:
            if len(outcomes) > 1:
                half = len(outcomes) // 2
                self._write_apart(outcomes[:half], [])
                self._write_apart(outcomes[half:], closes)
            elif outcomes:
                self._write([_unstorable(outcomes[0], error)], closes)
            else:
                raise

    def _write(self, outcomes: list[JobOutcome], closes: list[_Close]) -> None:
        with self._database.write() as connection:
            written = 0
            chunk_queries.lock(connection, _chunks(outcomes, closes))
            if outcomes:
                written = outcome_queries.record(connection, outcomes, worker=self._worker)
            self._end_chunks(connection, closes)
            outcome_queries.settle(connection, _batches(outcomes, closes))
        self.jobs_written += written
        if written < len(outcomes):
            logger.info(
                "%d results came too late: their leases were lost",
                len(outcomes) - written,
                extra={"action": "late_results"},
            )

    def _end_chunks(self, connection: Connection, closes: list[_Close]) -> None:
        done = {close.run.claim.chunk: close.run.claim.token for close in closes if close.done}
        if done:
            chunk_queries.finish(connection, done)
        # These lock jobs again: in the order of everyone.
        rest = [close for close in closes if not close.done]
        for close in sorted(rest, key=lambda item: item.run.claim.chunk):
            claim = close.run.claim
            if close.run.retry_attempt:
                recovery_queries.retry_later(
                    connection,
                    claim.chunk,
                    claim.token,
                    max_attempts=self._max_attempts,
                    delay=backoff(close.run.retry_attempt),
                )
            else:
                chunk_queries.release(connection, claim.chunk, claim.token)


def _unstorable(outcome: JobOutcome, error: ValueRefused) -> JobOutcome:
    return outcome._replace(
        state=JobState.FAILED,
        samples=(),
        error_code="unstorable_result",
        error_message=storable(error.message),
        # Nobody knows which of the texts it is.
        tries=tuple(one._replace(samples=None) for one in outcome.tries),
    )


def _chunks(outcomes: list[JobOutcome], closes: list[_Close]) -> set[int]:
    return {outcome.chunk for outcome in outcomes} | {close.run.claim.chunk for close in closes}


def _batches(outcomes: list[JobOutcome], closes: list[_Close]) -> list[int]:
    return [outcome.batch for outcome in outcomes] + [close.run.claim.batch for close in closes]
