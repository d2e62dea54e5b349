"""The mill while a shutdown overtakes it, or its database is away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import pytest

from db.database import Database
from db.states import BatchState
from tests.support.invariants import Snapshot
from tests.support.mills import FaultyDatabase, Slot, a_mill, echo, job_now, messages
from tests.support.processes import eventually
from tests.support.stored import a_batch, a_claim, a_worker, batch_now, chunk_states
from worker.run import Ending


@pytest.fixture
def faulty(database_url: str) -> Iterator[FaultyDatabase]:
    made = FaultyDatabase(database_url)
    yield made
    made.away.clear()
    made.close()


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.flusher._RETRY", 0.05)
    monkeypatch.setattr("worker.mill._RETRY", 0.05)


def test_given_work_that_can_be_finished_when_drained_then_it_is(database: Database) -> None:
    batch = a_batch(database, 4)
    with a_mill(database, echo(latency="0.2")) as mill:
        slot = Slot(mill, messages(database)[0])
        eventually(mill.leases, what="the chunk is claimed")
        assert mill.drain(30) == 0
        assert slot.ended() is Ending.WRITTEN
    assert batch_now(database, batch).state == BatchState.COMPLETED


def test_given_work_that_hangs_when_drained_then_it_goes_back_in_time_with_no_attempt_spent(
    database: Database,
) -> None:
    batch = a_batch(database, 4, prompts={3: "[[hang]]"})
    (chunk,) = messages(database)
    with a_mill(database, echo(faults="on")) as mill:
        slot = Slot(mill, chunk)
        eventually(lambda: mill.flusher.jobs_written == 3, what="the rest is written")
        begun = time.monotonic()
        assert mill.drain(0.3) == 1
        assert slot.ended() is Ending.RELEASED
        assert 0.3 <= time.monotonic() - begun < 5
        assert Slot(mill, chunk).ended() is Ending.RELEASED
        assert mill.work_on_next() is False
    assert (job_now(database, batch, 3).attempts, batch_now(database, batch).succeeded) == (0, 3)
    assert messages(database) == [chunk]
    again = a_claim(database, a_worker(database))
    assert again is not None
    assert [one.line for one in again.jobs] == [3]


def test_given_a_second_signal_when_draining_then_it_waits_no_longer(database: Database) -> None:
    a_batch(database, 1, prompts={1: "[[hang]]"})
    with a_mill(database, echo(faults="on")) as mill:
        slot = Slot(mill, messages(database)[0])
        eventually(mill.leases, what="the chunk is claimed")
        mill.interrupt(now=False)
        hurry = threading.Timer(0.2, mill.interrupt, kwargs={"now": True})
        hurry.start()
        begun = time.monotonic()
        assert mill.drain(60) == 1
        assert slot.ended() is Ending.RELEASED
        assert time.monotonic() - begun < 10


def test_given_a_claim_under_way_when_drained_then_its_chunk_goes_back_too(
    faulty: FaultyDatabase,
) -> None:
    batch = a_batch(faulty, 2)
    (chunk,) = messages(faulty)
    claiming, go_on = threading.Event(), threading.Event()

    def hold_up() -> None:
        if threading.current_thread().name == "claimer":
            claiming.set()
            assert go_on.wait(30)

    with a_mill(faulty, echo(latency="600")) as mill:
        faulty.before_commit = hold_up
        slot = Slot(mill, chunk, name="claimer")
        assert claiming.wait(30)
        assert mill.drain(0.1) == 0
        go_on.set()
        assert slot.ended() is Ending.RELEASED
    assert chunk_states(faulty, batch.key) == ["queued"]
    assert job_now(faulty, batch, 1).attempts == 0


def test_given_a_database_that_goes_away_when_results_come_then_they_wait_and_none_is_lost(
    faulty: FaultyDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    batch = a_batch(faulty, 8, chunk_size=4)
    first, second = messages(faulty)
    with caplog.at_level(logging.INFO), a_mill(faulty, echo(latency="0.1")) as mill:
        slot = Slot(mill, first)
        eventually(mill.leases, what="the chunk is claimed")
        faulty.away.set()
        other = Slot(mill, second)
        eventually(lambda: faulty.refused >= 6, what="both claims and results have waited")
        assert slot.working
        assert other.working
        faulty.away.clear()
        assert (slot.ended(), other.ended()) == (Ending.WRITTEN, Ending.WRITTEN)
    told = [getattr(one, "action", "") for one in caplog.records]
    assert told.count("flush_waits") == told.count("flush_resumes") == 1
    assert told.count("claim_waits") == 1
    assert batch_now(faulty, batch).state == BatchState.COMPLETED
    Snapshot.of(faulty).check()


def test_given_a_database_that_is_away_when_too_much_waits_then_the_engine_waits_too(
    faulty: FaultyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.flusher._BOUND", 5)
    monkeypatch.setattr("worker.flusher._BATCH", 2)
    batch = a_batch(faulty, 640, chunk_size=20)
    first, *_ = messages(faulty)
    with a_mill(faulty) as mill:
        faulty.before_commit = faulty.away.set
        slot = Slot(mill, first)
        eventually(lambda: faulty.refused >= 3, what="results have waited", deadline=20)
        assert mill.flusher._items.qsize() == 5
        assert slot.working
        faulty.before_commit = lambda: None
        faulty.away.clear()
        assert slot.ended() is Ending.WRITTEN
    assert batch_now(faulty, batch).succeeded == 20


def test_given_a_database_that_stays_away_when_stopped_then_the_worker_ends_all_the_same(
    faulty: FaultyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.flusher._BOUND", 2)
    monkeypatch.setattr("worker.flusher._BATCH", 1)
    batch = a_batch(faulty, 16, chunk_size=4)
    first, *_ = messages(faulty)
    with a_mill(faulty, echo(latency="0.2")) as mill:
        slot = Slot(mill, first)
        eventually(mill.leases, what="the chunk is claimed")
        faulty.away.set()
        eventually(lambda: faulty.refused >= 3, what="results wait")
        begun = time.monotonic()
        mill.drain(0.2)
        mill.flusher.stop(0.3)
        mill.abandon()
        mill._engine.close()
        slot.ended()
        assert time.monotonic() - begun < 10
    assert batch_now(faulty, batch).done == 0
    # Nothing was said about it: its lease runs out, and recovery takes it from there.
    assert chunk_states(faulty, batch.key)[0] == "running"
