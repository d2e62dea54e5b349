"""How fast a batch goes by its workers' heartbeats, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from db.database import Database
from db.queries import workers
from db.queries.pace import pace
from db.records import Batch, Pace
from db.schema import workers as table
from tests.support.stored import a_batch, a_claim, a_worker


def beat(database: Database, worker: int, *, in_flight: int, rate: float) -> None:
    with database.write() as connection:
        workers.beat(connection, worker, {"in_flight": in_flight, "tokens_per_second": rate})


def pace_of(database: Database, batch: Batch) -> Pace:
    with database.read() as connection:
        return pace(connection, batch, within=60)


def test_batch_without_workers_has_no_pace(database: Database) -> None:
    now = pace_of(database, a_batch(database))
    assert (now.serving, now.working, now.running, now.tokens_per_second) == (0, 0, 0, 0)
    assert now.now > 1.7e9


def test_workers_that_hold_its_chunks_make_its_pace(database: Database) -> None:
    batch = a_batch(database, 8, chunk_size=4)
    first, second, idle = (a_worker(database) for _ in range(3))
    for worker, rate in ((first, 100.0), (second, 50.0)):
        a_claim(database, worker)
        beat(database, worker, in_flight=3, rate=rate)
    beat(database, idle, in_flight=0, rate=7.0)
    other = a_worker(database, queue="promptmill.other")
    beat(database, other, in_flight=4, rate=1000.0)

    now = pace_of(database, batch)
    assert (now.serving, now.working, now.running) == (3, 2, 6)
    assert now.tokens_per_second == pytest.approx(150)


def test_requests_that_wait_in_an_engine_do_not_run(database: Database) -> None:
    batch = a_batch(database, 8, chunk_size=8)
    worker = a_worker(database, capacity=4)
    a_claim(database, worker)
    beat(database, worker, in_flight=8, rate=10.0)
    assert pace_of(database, batch).running == 4


def test_worker_of_two_batches_is_shared_between_them(database: Database) -> None:
    batch, other = (a_batch(database, 4, chunk_size=4) for _ in range(2))
    worker = a_worker(database)
    assert a_claim(database, worker)
    assert a_claim(database, worker)
    beat(database, worker, in_flight=4, rate=100.0)
    for shared in (batch, other):
        now = pace_of(database, shared)
        assert (now.working, now.running) == (1, 2)
        assert now.tokens_per_second == pytest.approx(50)


def test_workers_that_shut_down_serve_no_more_and_say_when_they_end(database: Database) -> None:
    batch = a_batch(database, 8, chunk_size=4)
    first, second = a_worker(database), a_worker(database)
    a_claim(database, first)
    with database.write() as connection:
        workers.beat(connection, first, {"in_flight": 4}, stops_within=30)
    now = pace_of(database, batch)
    assert (now.serving, now.working) == (1, 1)
    assert now.stops_at == pytest.approx(now.now + 30, abs=5)

    # A later heartbeat does not put it off.
    with database.write() as connection:
        workers.beat(connection, first, {"in_flight": 4}, stops_within=9000)
    assert pace_of(database, batch).stops_at == now.stops_at

    a_claim(database, second)
    now = pace_of(database, batch)
    assert (now.serving, now.working, now.stops_at) == (1, 2, None)


def test_silent_and_stopped_workers_do_not_count(database: Database) -> None:
    batch = a_batch(database, 8, chunk_size=4)
    silent, stopped = a_worker(database), a_worker(database)
    for worker in (silent, stopped):
        a_claim(database, worker)
        beat(database, worker, in_flight=4, rate=10.0)
    with database.write() as connection:
        connection.execute(update(table).where(table.c.id == silent).values(heartbeat_at=1.0))
        workers.stop(connection, stopped)
    assert pace_of(database, batch).serving == 0
