"""The mill: claim, generate, persist. One per process, around one engine.

claim     a slot that heard a message, or the poller that heard none, takes a chunk when the
          engine has room: so no worker holds more than it can start, and at the end of a
          batch the rest is there for whoever is idle
generate  every open job of it goes to the engine at once; several chunks are in flight, so
          the engine's batch never drains while the next chunk is fetched
persist   each job's outcome goes to the flusher the moment it comes
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from db.database import Database
from db.errors import DatabaseError
from db.plan import is_last_attempt
from db.queries import chunks as chunk_queries
from db.queries.outcomes import JobOutcome
from db.records import Claim, ClaimedJob
from db.settings import Settings
from db.states import JobState
from worker.asking import ask, surprise
from worker.engine.parameters import refused_mode
from worker.engine.protocol import Engine, Failed, MeasuringEngine, Outcome, Request
from worker.flusher import Flusher
from worker.requests import to_outcome, to_request
from worker.run import Ending, Run
from worker.second_tries import Kept

logger = logging.getLogger(__name__)

#: Seconds between two looks at whether the engine has room, besides being told.
_LOOK = 0.2
#: Seconds between two tries to claim while the database is away.
_RETRY = 2.0


class Mill:
    """Claims chunks, feeds the engine and hands outcomes on.

    Threads: any number of slots and the poller call `work_on` and `work_on_next`; the engine's
    thread answers; `drain` may be called from anywhere.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        engine: Engine,
        *,
        worker: int,
        queue: str,
        only: int | None = None,
    ) -> None:
        """`only`: the key of the one batch to work on; by default it is whatever waits."""
        self._settings = settings
        self._database = database
        self._engine = engine
        self._worker = worker
        self._queue = queue
        self._only = only
        self._runs: dict[int, Run] = {}
        self._change = threading.Condition()
        #: One claim at a time: two at once would both see the same room.
        self._turn = threading.Lock()
        self._heard_at = time.monotonic()
        self._draining = False
        #: Whether `drain` has seen what there was: a run that begins now would be forgotten.
        self._drained = False
        self._hurry = False
        self.flusher = Flusher(
            database,
            worker=worker,
            interval=settings.flush_interval,
            max_attempts=settings.max_attempts,
            on_ended=self._forget,
        )

    def work_on(self, chunk: int) -> Ending:
        """Work on this chunk until it ends; GONE where it is not to be had.

        A mill for one batch takes the message for a bell: the chunk may be another batch's.
        """
        self._heard_at = time.monotonic()
        run = self._begin(
            self._take_next
            if self._only is not None
            else lambda connection: chunk_queries.claim(
                connection, chunk, worker=self._worker, lease=self._settings.lease
            )
        )
        return run.wait() if isinstance(run, Run) else run

    def work_on_next(self) -> bool:
        """Begin the most urgent chunk of the queue without a message; whether there was one."""
        return isinstance(self._begin(self._take_next), Run)

    @property
    def has_room(self) -> bool:
        """Whether the engine could start another request at once."""
        stats = self._engine.stats()
        return stats.in_flight < stats.capacity

    def await_room(self, timeout: float) -> bool:
        """Wait for room, at most `timeout` seconds; whether there is some."""
        with self._change:
            return self._change.wait_for(lambda: self.has_room, timeout)

    @property
    def silent_for(self) -> float:
        """Seconds since the last message."""
        return time.monotonic() - self._heard_at

    @property
    def draining(self) -> bool:
        return self._draining

    def leases(self) -> dict[int, str]:
        """The chunks that are worked on, with their tokens."""
        with self._change:
            return {run.claim.chunk: run.claim.token for run in self._runs.values()}

    def lose(self, chunk: int, token: str) -> None:
        """This lease is gone: stop working on the chunk, write nothing more.

        Unless its end was on its way: then the lease was given back, or the write is refused.
        """
        run = self._runs.get(chunk)
        if run is None or run.claim.token != token or run.closing:
            return
        if run.end(Ending.LOST):
            logger.info("chunk %d is not ours any more", chunk, extra={"action": "lease_lost"})
            self._cancel(run)
            self._forget(run)

    def interrupt(self, *, now: bool) -> None:
        """A shutdown begins: claim nothing more; with `now`, `drain` waits for nothing either.

        Takes no lock, so that a signal handler may call it; waiters look every 0.2 s.
        """
        self._draining = True
        if now:
            self._hurry = True

    def drain(self, grace: float) -> int:
        """Finish what can be finished within `grace` seconds, hand the rest back; how many.

        What goes back spends no attempt: a shutdown is not a failure.
        """
        self._draining = True
        self._wake()
        deadline = time.monotonic() + grace
        with self._change:
            while self._runs and not self._hurry:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._change.wait(min(left, _LOOK))
            rest = list(self._runs.values())
            self._drained = True
        for run in rest:
            # In this order: what the engine answers to the cancel comes after the run's end.
            self._close(run, Ending.RELEASED)
            self._cancel(run)
        return len(rest)

    def abandon(self) -> None:
        """Let go of whatever is left, written or not: the process ends, its leases run out."""
        with self._change:
            rest = list(self._runs.values())
        for run in rest:
            run.end(Ending.RELEASED)

    def _take_next(self, connection: Connection) -> Claim | None:
        return chunk_queries.claim_next(
            connection,
            self._queue,
            worker=self._worker,
            lease=self._settings.lease,
            batch=self._only,
        )

    def _begin(self, take: Callable[..., Claim | None]) -> Run | Ending:
        with self._turn:
            if not self._wait_for_room():
                return Ending.RELEASED
            claim = self._claim(take)
            if claim is None:
                return Ending.RELEASED if self._draining else Ending.GONE
            run = Run(claim, received_at=time.time())
            with self._change:
                overtaken = self._drained
                if not overtaken:
                    self._runs[claim.chunk] = run
            if overtaken:
                self._hand_back(claim)
                return Ending.RELEASED
            if self._is_suspect(claim):
                self._generate_alone(run)
            else:
                self._generate(run)
        return run

    def _is_suspect(self, claim: Claim) -> bool:
        limit = self._settings.max_attempts
        return any(is_last_attempt(job.attempts, limit) for job in claim.jobs)

    def _generate_alone(self, run: Run) -> None:
        """It may have broken its worker before: nobody runs beside it, nobody dies with it.

        Nothing else begins meanwhile: the caller has the turn, and keeps it until the end.
        """
        self._await(lambda: self._draining or len(self._runs) <= 1)
        if self._draining:
            self._close(run, Ending.RELEASED)
        elif run.ending is None:
            self._generate(run)
        self._await(lambda: run.ending is not None)

    def _await(self, condition: Callable[[], bool]) -> None:
        with self._change:
            while not condition():
                self._change.wait(_LOOK)

    def _hand_back(self, claim: Claim) -> None:
        """The drain was over before this claim was: nobody else knows of it."""
        try:
            with self._database.write() as connection:
                chunk_queries.release(connection, claim.chunk, claim.token)
        except DatabaseError as error:
            logger.warning("could not hand back: %s", error.message, extra={"action": "release"})

    def _wait_for_room(self) -> bool:
        with self._change:
            while not self._draining and not self.has_room:
                self._change.wait(_LOOK)
        return not self._draining

    def _claim(self, take: Callable[..., Claim | None]) -> Claim | None:
        """Claim in a transaction of its own; waits while the database is away."""
        complained = False
        while not self._draining:
            try:
                with self._database.write() as connection:
                    return take(connection)
            except DatabaseError as error:
                if not complained:
                    logger.warning(
                        "claims wait: %s", error.message, extra={"action": "claim_waits"}
                    )
                    complained = True
                self._pause(_RETRY)
        return None

    def _pause(self, seconds: float) -> None:
        """Wait, unless a shutdown begins."""
        deadline = time.monotonic() + seconds
        with self._change:
            while not self._draining and time.monotonic() < deadline:
                self._change.wait(_LOOK)

    def _generate(self, run: Run) -> None:
        if not run.claim.jobs:
            self._close(run, Ending.WRITTEN)
            return

        def on_done(request_id: str, outcome: Outcome, tries: Sequence[Kept] = ()) -> None:
            self._persist(run, request_id, outcome, tries)

        for job in run.claim.jobs:
            request_id = run.request_id(job.line)
            try:
                request = to_request(run, job)
                if isinstance(request, Failed):
                    on_done(request_id, request)
                elif isinstance(request, Request):
                    ask(self._engine, self._settings.engine, request, on_done, run)
                elif isinstance(self._engine, MeasuringEngine):
                    self._engine.measure(request, on_done)
                else:
                    on_done(request_id, refused_mode(self._settings.engine, run.claim.mode))
            except Exception as error:
                logger.exception("a request could not be made", extra={"action": "surprise"})
                on_done(request_id, surprise(error))

    def _persist(self, run: Run, request_id: str, outcome: Outcome, tries: Sequence[Kept]) -> None:
        job = run.answered(request_id)
        if job is None:
            return
        stored = self._stored(run, job, outcome, tries)
        if stored is None:
            run.cut_short = True
        else:
            if stored.state is JobState.QUEUED:
                run.retry_attempt = max(run.retry_attempt, job.attempts + 1)
            self.flusher.put(stored)
            _report(run, stored)
        if run.settled():
            self._close(run, Ending.WRITTEN)
        self._wake()

    def _stored(
        self, run: Run, job: ClaimedJob, outcome: Outcome, tries: Sequence[Kept]
    ) -> JobOutcome | None:
        limit = self._settings.max_attempts
        try:
            return to_outcome(run, job, outcome, max_attempts=limit, tries=tries)
        except Exception as error:
            logger.exception("an answer could not be read", extra={"action": "surprise"})
            return to_outcome(run, job, surprise(error), max_attempts=limit)

    def _close(self, run: Run, ending: Ending) -> None:
        run.closing = True
        self.flusher.close_run(run, ending)

    def _cancel(self, run: Run) -> None:
        for request_id in run.open_requests:
            self._engine.cancel(request_id)

    def _forget(self, run: Run) -> None:
        with self._change:
            if self._runs.get(run.claim.chunk) is run:
                del self._runs[run.claim.chunk]
            self._change.notify_all()

    def _wake(self) -> None:
        with self._change:
            self._change.notify_all()


def _report(run: Run, stored: JobOutcome) -> None:
    if stored.error_code is None:
        _report_kept(run, stored)
        return
    again = stored.state is JobState.QUEUED
    logger.warning(
        "job %s-%d: %s",
        run.claim.batch_uid,
        stored.line,
        stored.error_message,
        extra={"action": "job_retries" if again else "job_fails", "code": stored.error_code},
    )


def _report_kept(run: Run, stored: JobOutcome) -> None:
    """A later try that got no answer leaves the job with one that was cut."""
    for one in stored.tries:
        if one.samples is None:
            logger.warning(
                "job %s-%d keeps a text that was cut, as asking again failed: %s",
                run.claim.batch_uid,
                stored.line,
                one.error_message,
                extra={"action": "retry_fails", "code": one.error_code},
            )
