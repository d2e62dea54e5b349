"""Recovery: whatever a producer or Redis lost is found again, a round at a time."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import update

from db.clock import db_now
from db.database import Database
from db.errors import BrokerUnavailable
from db.ids import new_uid
from db.queries import batches, jobs, recovery, steering
from db.queries.jobs import NewJob
from db.schema import batches as batch_table
from db.settings import Settings
from db.states import BatchState
from tests.support.invariants import Snapshot
from tests.support.stored import (
    MODEL,
    QUEUE,
    a_batch,
    a_claim,
    a_worker,
    batch_now,
    chunk_states,
    claims,
    expire,
)
from worker.recovery import cancels, submissions, unsent
from worker.recovery.rounds import Recovery

Message = tuple[int, str, int]


def lose_all(database: Database, worker: int) -> list[list[int]]:
    """A worker claims whatever waits and dies of it; the lines that it had, a list a chunk."""
    held = claims(database, worker)
    for claim in held:
        expire(database, claim.chunk)
    return [[job.line for job in claim.jobs] for claim in held]


@pytest.fixture
def worker(database: Database) -> int:
    return a_worker(database)


# --- messages -----------------------------------------------------------------------------


class Bell:
    """What Celery would have sent; away when told so."""

    def __init__(self) -> None:
        self.rung: list[Message] = []
        self.away = False

    def send(self, messages: list[Message]) -> int:
        if self.away:
            raise BrokerUnavailable("Redis is away")
        self.rung += messages
        return len(messages)


def test_given_chunks_that_were_never_sent_when_recovering_then_they_ring_once(
    database: Database,
) -> None:
    a_batch(database, 6, chunk_size=2, priority=7)
    a_batch(database, 1, queue="promptmill.other")
    bell = Bell()
    assert unsent.run(database, QUEUE, bell.send) == 3
    assert unsent.run(database, QUEUE, bell.send) == 0
    assert [(queue, priority) for _, queue, priority in bell.rung] == [(QUEUE, 7)] * 3
    assert len({chunk for chunk, _, _ in bell.rung}) == 3


def test_given_redis_that_is_away_when_recovering_then_they_ring_when_it_is_back(
    database: Database,
) -> None:
    a_batch(database, 6, chunk_size=2)
    bell = Bell()
    bell.away = True
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            unsent.run(database, QUEUE, bell.send)
    bell.away = False
    assert unsent.run(database, QUEUE, bell.send) == 3
    assert len(bell.rung) == 3


# --- cancels and submissions --------------------------------------------------------------


def test_given_a_cancel_that_died_half_way_when_recovering_then_it_is_finished(
    database: Database, worker: int
) -> None:
    batch = a_batch(database, 4)
    assert a_claim(database, worker) is not None
    with database.write() as connection:
        steering.begin_cancel(connection, batch.id)
    assert cancels.run(database) == 1
    assert cancels.run(database) == 0
    now = batch_now(database, batch)
    assert (now.state, now.cancelled) == (BatchState.CANCELLED, 4)


def test_given_a_submission_that_died_when_recovering_then_it_is_swept_and_a_live_one_is_not(
    database: Database,
) -> None:
    keys = []
    for _ in range(2):
        with database.write() as connection:
            key = batches.create(
                connection,
                uid=new_uid(),
                name=None,
                model=MODEL,
                queue=QUEUE,
                priority=5,
                params={},
                metadata={},
                chunk_size=4,
            )
            jobs.insert_slice(connection, key, [NewJob(1, "{}")], now=1.0)
            keys.append(key)
    dead, alive = keys
    queued = a_batch(database, 1)
    with database.write() as connection:
        connection.execute(
            update(batch_table)
            .where(batch_table.c.id.in_([dead, queued.key]))
            .values(touched_at=db_now() - 601)
        )
    assert submissions.run(database) == 1
    assert submissions.run(database) == 0
    left = Snapshot.of(database)
    assert set(left.batches) == {alive, queued.key}
    assert {row.batch_id for row in left.jobs} == {alive, queued.key}


# --- rounds -------------------------------------------------------------------------------


def test_given_a_bit_of_everything_when_a_round_is_run_then_all_of_it_is_recovered(
    database: Database, worker: int
) -> None:
    lost, cancelled = a_batch(database, 2), a_batch(database, 2)
    lose_all(database, worker)
    with database.write() as connection:
        steering.begin_cancel(connection, cancelled.id)
    bell = Bell()
    rounds = Recovery(Settings(recovery_interval=10), database, QUEUE, bell.send)
    assert 8 <= rounds.round() <= 12
    assert batch_now(database, cancelled).state == BatchState.CANCELLED
    assert chunk_states(database, lost.key) == ["queued"]
    assert len(bell.rung) == 1
    Snapshot.of(database).check()


def test_given_redis_that_is_away_when_a_round_is_run_then_the_rest_of_it_is_done(
    database: Database, worker: int
) -> None:
    lost = a_batch(database, 2)
    lose_all(database, worker)
    bell = Bell()
    bell.away = True
    rounds = Recovery(Settings(), database, QUEUE, bell.send)
    with pytest.raises(BrokerUnavailable):
        rounds.round()
    assert chunk_states(database, lost.key) == ["queued"]
    bell.away = False
    rounds.round()
    assert len(bell.rung) == 1


def test_given_another_worker_that_recovers_when_a_round_is_run_then_it_leaves_that_to_it(
    postgres_url: str,
) -> None:
    database = Database(Settings(database_url=postgres_url))
    lost = a_batch(database, 2)
    lose_all(database, a_worker(database))
    rounds = Recovery(Settings(), database, QUEUE, Bell().send)
    with database.write() as connection:
        assert recovery.try_lock(connection)
        done = threading.Thread(target=rounds.round)
        done.start()
        done.join(20)
        assert not done.is_alive()
        assert chunk_states(database, lost.key) == ["running"]
    rounds.round()
    assert chunk_states(database, lost.key) == ["queued"]
    database.close()
