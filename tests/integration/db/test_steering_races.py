"""Pause, resume, cancel and retry against workers that write meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Event

import pytest
from sqlalchemy import event, text

from db.database import Database
from db.errors import ConflictError
from db.queries import chunks, outcomes, steering
from db.records import Claim
from db.settings import Settings
from db.states import BatchState
from tests.support.crowd import at_once
from tests.support.invariants import ENDED, Snapshot
from tests.support.processes import eventually
from tests.support.steering import Verb, cancel, drain, retry, steer, write
from tests.support.stored import (
    LEASE,
    QUEUE,
    a_batch,
    a_claim,
    a_worker,
    batch_now,
    chunk_states,
    claims,
    expire,
    failed,
    succeeded,
)
from worker.recovery import cancels, leases


@pytest.fixture
def crowded(database_url: str) -> Iterator[Database]:
    """With connections for many threads."""
    made = Database(Settings(database_url=database_url), pool_size=12)
    yield made
    made.close()


def flusher(database: Database, stop: Event) -> Callable[[], None]:
    """A worker that claims, flushes parts of several chunks at once, and renews."""
    worker = a_worker(database)

    def run() -> None:
        while not stop.is_set():
            held = [one for _ in range(3) if (one := a_claim(database, worker)) is not None]
            # The later chunk's outcomes go with the earlier chunk's end.
            for first, last in zip(held[::-1], held, strict=True):
                made = [succeeded(first, job.line) for job in first.jobs[:1]]
                ids = {first.chunk, last.chunk}
                with database.write() as connection:
                    chunks.lock(connection, ids)
                    outcomes.record(connection, made, worker=worker)
                    chunks.release(connection, last.chunk, last.token)
                    outcomes.settle(connection, [first.batch, last.batch])
                with database.write() as connection:
                    chunks.renew(
                        connection, {one.chunk: one.token for one in held[::-1]}, lease=LEASE
                    )
            for one in held:
                with database.write() as connection:
                    chunks.release(connection, one.chunk, one.token)

    return run


def test_given_four_flushing_workers_when_batches_are_paused_and_resumed_then_nobody_deadlocks(
    crowded: Database,
) -> None:
    made = [a_batch(crowded, 60, chunk_size=2) for _ in range(2)]
    stop = Event()

    def steered() -> None:
        try:
            for turn in range(16):
                for batch in made:
                    with suppress(ConflictError):
                        steer(crowded, steering.pause if turn % 2 else steering.resume, batch)
        finally:
            stop.set()

    at_once([steered, *(flusher(crowded, stop) for _ in range(4))])
    for batch in made:
        with suppress(ConflictError):
            steer(crowded, steering.resume, batch)
    drain(crowded, a_worker(crowded))
    end = Snapshot.of(crowded)
    end.check()
    assert {batch.state for batch in end.batches.values()} == {BatchState.COMPLETED}


def test_given_four_flushing_workers_when_batches_are_cancelled_by_two_then_every_count_is_right(
    crowded: Database,
) -> None:
    made = [a_batch(crowded, 24, chunk_size=2) for _ in range(8)]
    stop = Event()

    def cancelling(order: int) -> Callable[[], None]:
        def run() -> None:
            try:
                for batch in made[::order]:
                    with suppress(ConflictError):
                        cancel(crowded, batch)
                    cancels.run(crowded)
            finally:
                stop.set()

        return run

    at_once([cancelling(1), cancelling(-1), *(flusher(crowded, stop) for _ in range(4))])
    drain(crowded, a_worker(crowded))
    end = Snapshot.of(crowded)
    end.check()
    assert all(batch.state in ENDED for batch in end.batches.values())


def test_given_flushing_workers_when_failed_jobs_are_retried_and_paused_then_none_is_stranded(
    crowded: Database,
) -> None:
    batch = a_batch(crowded, 40, chunk_size=2)
    worker = a_worker(crowded)
    for claim in claims(crowded, worker)[::2]:
        write(crowded, claim, worker, bad=tuple(job.line for job in claim.jobs))
    stop = Event()

    def retrying() -> None:
        stale = batch_now(crowded, batch)
        for line in range(1, 41):
            with suppress(ConflictError):
                retry(crowded, stale, [line])

    def pausing() -> None:
        try:
            for turn in range(20):
                with suppress(ConflictError):
                    steer(crowded, steering.resume if turn % 2 else steering.pause, batch)
        finally:
            stop.set()

    at_once([retrying, pausing, flusher(crowded, stop), flusher(crowded, stop)])
    with suppress(ConflictError):
        steer(crowded, steering.resume, batch)
    drain(crowded, worker)
    end = Snapshot.of(crowded)
    end.check()
    assert not end.open_jobs()


@pytest.mark.parametrize("verb", [steering.pause, steering.resume])
def test_given_a_retry_in_the_middle_of_a_pause_or_resume_when_it_is_over_then_its_chunk_obeys_too(
    postgres_url: str, verb: Verb
) -> None:
    database = Database(Settings(database_url=postgres_url))
    other = Database(Settings(database_url=postgres_url))
    batch, worker = a_batch(database, 4, chunk_size=2), a_worker(database)
    claim = a_claim(database, worker)
    assert claim is not None
    write(database, claim, worker, bad=(1,))
    if verb is steering.resume:
        steer(database, steering.pause, batch)
    with ThreadPoolExecutor(1) as pool:
        meanwhile: list[Future[int]] = []

        def between(*args: object) -> None:
            """The verb has changed its chunks, and is about to change the batch."""
            if str(args[2]).startswith("UPDATE batches") and not meanwhile:
                meanwhile.append(pool.submit(retry, other, batch_now(database, batch)))
                eventually(
                    lambda: meanwhile[0].done() or waits_for_a_lock(other),
                    what="the retry to end or to wait for its turn",
                )

        event.listen(database.engine, "before_cursor_execute", between)
        steer(database, verb, batch)
        assert [one.result() for one in meanwhile] == [1]
    waiting = {"held"} if verb is steering.pause else {"queued"}
    assert set(chunk_states(database, batch.key)) == {*waiting, "done"}
    with suppress(ConflictError):
        steer(database, steering.resume, batch)
    drain(database, worker)
    Snapshot.of(database).check()
    assert not Snapshot.of(database).open_jobs()
    for one in (database, other):
        one.close()


def test_given_a_cancel_that_another_one_has_finished_when_recovery_comes_late_then_it_does_nothing(
    database: Database,
) -> None:
    """It had seen the batch in `cancelling`; meanwhile it was cancelled, and a job retried."""
    batch, worker = a_batch(database, 4, chunk_size=2), a_worker(database)
    claim = a_claim(database, worker)
    assert claim is not None
    write(database, claim, worker, bad=(1,))
    cancel(database, batch)
    assert retry(database, batch_now(database, batch)) == 1
    with database.write() as connection:
        steering.finish_cancel(connection, batch.key)
    Snapshot.of(database).check()
    drain(database, worker)
    now = batch_now(database, batch)
    assert (now.state, now.succeeded, now.cancelled) == (BatchState.COMPLETED, 2, 2)
    Snapshot.of(database).check()


@pytest.mark.parametrize("end", ["released", "lost", "finished"])
def test_given_a_job_that_failed_in_a_running_chunk_when_retried_then_it_is_in_one_chunk_only(
    database: Database, end: str
) -> None:
    batch, worker = a_batch(database, 4), a_worker(database)
    first = a_claim(database, worker)
    assert first is not None
    with database.write() as connection:
        outcomes.record(connection, [failed(first, 2)], worker=worker)
    assert retry(database, batch_now(database, batch)) == 1
    Snapshot.of(database).check()
    if end == "released":
        with database.write() as connection:
            chunks.release(connection, first.chunk, first.token)
    elif end == "lost":
        expire(database, first.chunk)
        with database.write() as connection:
            leases.run(connection, max_attempts=3)
    else:
        with database.write() as connection:
            made = [succeeded(first, line) for line in (1, 3, 4)]
            outcomes.record(connection, made, worker=worker)
            chunks.finish(connection, {first.chunk: first.token})
    held = sorted(job.line for claim in claims(database, worker) for job in claim.jobs)
    assert held == ([2] if end == "finished" else [1, 2, 3, 4])


def waits_for_a_lock(database: Database) -> bool:
    """Whether a statement of its database, of anyone, waits for a lock."""
    with database.read() as connection:
        return bool(
            connection.execute(
                text(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
            ).scalar_one()
        )


def test_given_workers_that_hold_chunks_when_renewed_and_flushed_at_once_then_nobody_deadlocks(
    postgres_url: str,
) -> None:
    """The rows lie in the other order than their ids, so that an UPDATE finds them in it."""
    database = Database(Settings(database_url=postgres_url), pool_size=6)
    a_batch(database, 40, chunk_size=1)
    worker = a_worker(database)
    with database.write() as connection:
        ids = [one[0] for one in chunks.take_unsent(connection, 100)]
    held: list[Claim] = []
    for chunk in reversed(ids):
        with database.write() as connection:
            claim = chunks.claim(connection, chunk, worker=worker, lease=LEASE)
        assert claim is not None
        held.append(claim)

    def renewing() -> None:
        for _ in range(40):
            with database.write() as connection:
                chunks.renew(connection, {one.chunk: one.token for one in held}, lease=LEASE)

    def flushing(part: int) -> Callable[[], None]:
        def run() -> None:
            for one in held[part::2]:
                write(database, one, worker)
                with database.write() as connection:
                    chunks.lock(connection, ids)

        return run

    at_once([renewing, renewing, flushing(0), flushing(1)])
    assert a_claim(database, worker, queue=QUEUE) is None
    Snapshot.of(database).check()
    database.close()
