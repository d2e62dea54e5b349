"""Any order of what producers, workers and recovery do to a batch, on a real database.

After every step the tables agree with each other and no state moved but along the transitions;
at the end whoever drains the queue leaves every job in a terminal state.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import Connection, delete

from db.database import Database
from db.errors import ConflictError
from db.migrate import upgrade
from db.queries import chunks, outcomes, retries, steering
from db.queries.outcomes import JobOutcome
from db.records import Batch, Claim, ClaimedJob
from db.schema import metadata
from db.settings import Settings
from db.states import ChunkState
from tests.support.invariants import ENDED, Snapshot
from tests.support.stored import LEASE, QUEUE, a_batch, a_worker, expire, failed, succeeded
from worker.recovery import cancels, leases

MAX_ATTEMPTS = 2
#: Chooses among what there is at that moment.
pick = st.integers(0, 999)
endings = st.lists(st.sampled_from(["succeeded", "failed", "again", "silent"]), min_size=1)


class Mill(RuleBasedStateMachine):
    """One database, two small batches, and everyone who writes to them."""

    database: Database

    def __init__(self) -> None:
        super().__init__()
        with self.database.write() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(delete(table))
        self.worker = a_worker(self.database)
        #: As they were when submitted: a caller may hold an old record.
        self.batches: list[Batch] = []
        #: The last claim of each chunk, and older ones that sleeping workers still believe in.
        self.held: list[Claim] = []
        self.stale: list[Claim] = []
        self.before = Snapshot.of(self.database)

    @initialize(total=st.integers(1, 6), size=st.integers(1, 4))
    def submit_first(self, total: int, size: int) -> None:
        self.submit(total, size, set())

    @precondition(lambda self: len(self.batches) < 2)
    @rule(total=st.integers(1, 6), size=st.integers(1, 4), invalid=st.sets(st.integers(1, 6)))
    def submit(self, total: int, size: int, invalid: set[int]) -> None:
        bad = sorted(line for line in invalid if line <= total)
        self.batches.append(a_batch(self.database, total, chunk_size=size, invalid=bad))

    @rule(ends=st.just([]) | endings)
    def claim_and_begin(self, ends: list[str]) -> None:
        """The usual: a worker takes the next chunk and writes some of it."""
        if self._hold(lambda c: chunks.claim_next(c, QUEUE, worker=self.worker, lease=LEASE)):
            self._write(self.held[-1], ends)

    @rule(chunk=st.integers(1, 8))
    def claim_by_message(self, chunk: int) -> None:
        self._hold(lambda c: chunks.claim(c, chunk, worker=self.worker, lease=LEASE))

    @precondition(lambda self: self.held)
    @rule(which=pick, ends=endings)
    def write(self, which: int, ends: list[str]) -> None:
        """A worker, which may have lost the chunk long ago, writes outcomes, some of them twice."""
        self._write(self._pick(which), ends)

    @precondition(lambda self: self.held)
    @rule(which=pick, end=st.sampled_from(["succeeded", "failed"]))
    def complete(self, which: int, end: str) -> None:
        """A worker writes the rest of a chunk and closes it."""
        self._complete(self._pick(which), end)

    @precondition(lambda self: self.held)
    @rule(which=pick)
    def release(self, which: int) -> None:
        claim = self._pick(which)
        with self.database.write() as connection:
            chunks.release(connection, claim.chunk, claim.token)

    @rule()
    def renew(self) -> None:
        tokens = {claim.chunk: claim.token for claim in self.held}
        with self.database.write() as connection:
            kept = chunks.renew(connection, tokens, lease=LEASE)
        running = {chunk.id: chunk.lease_token for chunk in self.before.chunks}
        assert set(kept) == {chunk for chunk, token in tokens.items() if running[chunk] == token}

    @precondition(lambda self: self.held)
    @rule(which=pick)
    def lose_a_worker(self, which: int) -> None:
        """A lease runs out and recovery finds it; a claim stays with a worker that sleeps."""
        expire(self.database, self._pick(which).chunk)
        self._recover()

    @precondition(lambda self: self.batches)
    @rule(which=pick, verb=st.sampled_from([steering.pause, steering.resume]))
    def pause_or_resume(self, which: int, verb: Callable[[Connection, str], object]) -> None:
        self._steer(which, verb)

    @precondition(lambda self: self.batches)
    @rule(which=st.integers(0, 7))
    def begin_cancel(self, which: int) -> None:
        """Seldom: not much can happen afterwards."""
        if which < len(self.batches):
            self._steer(which, steering.begin_cancel)

    @rule()
    def finish_cancels(self) -> None:
        cancels.run(self.database)

    @precondition(lambda self: self.batches)
    @rule(which=pick, size=st.integers(1, 3))
    def retry(self, which: int, size: int) -> None:
        """With the record of the batch as it was long ago."""
        batch = self.batches[which % len(self.batches)]
        with suppress(ConflictError), self.database.write() as connection:
            lines = retries.failed_lines(connection, batch.key, 0)
            retries.requeue(connection, batch, lines, size)

    @invariant()
    def everything_agrees(self) -> None:
        now = Snapshot.of(self.database)
        now.check()
        now.check_since(self.before)
        self.before = now

    def teardown(self) -> None:
        """Resume, recover and drain: it ends, and everything is terminal."""
        self.finish_cancels()
        for which in range(len(self.batches)):
            self._steer(which, steering.resume)
        for chunk in Snapshot.of(self.database).chunks:
            if chunk.state == ChunkState.RUNNING:
                expire(self.database, chunk.id)
        self._recover()
        for _ in range(100):
            claim = self._claim(
                lambda c: chunks.claim_next(c, QUEUE, worker=self.worker, lease=LEASE)
            )
            if claim is None:
                break
            self._complete(claim, "succeeded")
        end = Snapshot.of(self.database)
        end.check()
        assert not end.open_jobs()
        assert all(batch.state in ENDED for batch in end.batches.values())

    def _pick(self, which: int) -> Claim:
        believed = self.held + self.stale
        return believed[which % len(believed)]

    def _claim(self, take: Callable[[Connection], Claim | None]) -> Claim | None:
        with self.database.write() as connection:
            return take(connection)

    def _hold(self, take: Callable[[Connection], Claim | None]) -> bool:
        claim = self._claim(take)
        if claim is not None:
            older = [one for one in self.held if one.chunk == claim.chunk]
            self.stale = (self.stale + older)[-2:]
            self.held = [*[one for one in self.held if one.chunk != claim.chunk][-3:], claim]
        return claim is not None

    def _write(self, claim: Claim, ends: list[str]) -> None:
        made = [
            outcome
            for place, end in enumerate(ends)
            if claim.jobs and (outcome := _ended(claim, claim.jobs[place % len(claim.jobs)], end))
        ]
        with self.database.write() as connection:
            outcomes.record(connection, made, worker=self.worker)
            outcomes.settle(connection, [claim.batch])

    def _complete(self, claim: Claim, end: str) -> None:
        with self.database.write() as connection:
            made = [_ended(claim, job, end) for job in claim.jobs]
            outcomes.record(connection, [one for one in made if one], worker=self.worker)
            chunks.finish(connection, {claim.chunk: claim.token})
            outcomes.settle(connection, [claim.batch])

    def _steer(self, which: int, verb: Callable[[Connection, str], object]) -> None:
        with suppress(ConflictError), self.database.write() as connection:
            verb(connection, self.batches[which % len(self.batches)].id)

    def _recover(self) -> None:
        with self.database.write() as connection:
            leases.run(connection, max_attempts=MAX_ATTEMPTS)


def _ended(claim: Claim, job: ClaimedJob, end: str) -> JobOutcome | None:
    if end == "succeeded":
        return succeeded(claim, job.line)
    return None if end == "silent" else failed(claim, job.line, again=end == "again")


class TestMill(Mill.TestCase):  # type: ignore[misc, valid-type]
    """One file for all runs: each begins with every table empty."""

    settings = settings(
        max_examples=50,
        stateful_step_count=30,
        phases=[Phase.generate],  # shrinking takes minutes: lift this to look into a failure
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

    @classmethod
    def setup_class(cls) -> None:
        cls.folder = tempfile.TemporaryDirectory()
        url = f"sqlite:///{Path(cls.folder.name) / 'states.db'}"
        Mill.database = Database(Settings(database_url=url))
        upgrade(Mill.database)

    @classmethod
    def teardown_class(cls) -> None:
        Mill.database.close()
        cls.folder.cleanup()
