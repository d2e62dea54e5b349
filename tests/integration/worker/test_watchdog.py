"""An engine that hangs takes its worker with it, and not its jobs; a changed schema, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from sqlalchemy import text

from db.database import Database
from db.settings import Settings
from db.states import JobState
from tests.support.invariants import Snapshot
from tests.support.mills import FaultyDatabase, Slot, a_mill, echo, job_now, messages
from tests.support.processes import eventually
from tests.support.stored import MODEL, a_batch, a_worker, batch_now, chunk_states
from worker.engine.echo import EchoEngine
from worker.mill import Mill
from worker.schema_watch import SchemaWatch
from worker.watchdog import STALLED, Watchdog


@pytest.fixture
def faulty(database_url: str) -> Iterator[FaultyDatabase]:
    made = FaultyDatabase(database_url)
    yield made
    made.away.clear()
    made.close()


@contextmanager
def hanging(
    database: Database, max_attempts: int = 3
) -> Iterator[tuple[Mill, EchoEngine, Watchdog, list[int]]]:
    """A mill that works on one chunk with a prompt that hangs, and its watchdog."""
    engine = echo(faults="on")
    left: list[int] = []
    config = Settings(model=MODEL, stall_timeout=1, max_attempts=max_attempts)
    with a_mill(database, engine, max_attempts=max_attempts) as mill:
        (chunk,) = messages(database)
        slot = Slot(mill, chunk)
        eventually(lambda: mill.flusher.jobs_written == 2, what="its neighbours are written")
        watchdog = Watchdog(
            config, database, engine, mill, worker=a_worker(database), leave=left.append
        )
        yield mill, engine, watchdog, left
        assert slot.working


def stalled(watchdog: Watchdog, left: list[int]) -> None:
    eventually(lambda: watchdog.look() and left, what="the watchdog has seen enough")


def test_given_an_engine_that_hangs_when_looked_at_then_the_worker_leaves_and_the_chunk_waits(
    faulty: FaultyDatabase,
) -> None:
    batch = a_batch(faulty, 3, prompts={2: "[[hang]]"})
    with hanging(faulty) as (_, engine, watchdog, left):
        assert 0 < watchdog.look() <= 5
        assert left == []
        stalled(watchdog, left)
        assert left == [STALLED]
        assert engine.stats().stalled_for >= 1
    job = job_now(faulty, batch, 2)
    assert (job.state, job.attempts, job.error_code) == (JobState.QUEUED, 1, "engine_stalled")
    assert [one.error_message for one in job.history] == ["the engine made no token for 1 s"]
    assert chunk_states(faulty, batch.key) == ["queued"]
    Snapshot.of(faulty).check()


def test_given_an_engine_that_is_broken_when_looked_at_then_the_worker_leaves_at_once(
    faulty: FaultyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = a_batch(faulty, 3, prompts={2: "[[hang]]"})
    with hanging(faulty) as (_, engine, watchdog, left):
        stats = replace(engine.stats(), broken="a device is gone", stalled_for=0.0)
        monkeypatch.setattr(engine, "stats", lambda: stats)
        watchdog.look()
        assert left == [STALLED]
    job = job_now(faulty, batch, 2)
    assert (job.state, job.attempts, job.error_code) == (JobState.QUEUED, 1, "engine_error")
    assert [one.error_message for one in job.history] == ["a device is gone"]
    assert chunk_states(faulty, batch.key) == ["queued"]
    Snapshot.of(faulty).check()


def test_given_a_job_that_has_hung_too_often_when_it_hangs_then_it_is_parked(
    faulty: FaultyDatabase,
) -> None:
    batch = a_batch(faulty, 3, prompts={2: "[[hang]]"})
    with hanging(faulty, max_attempts=1) as (_, _, watchdog, left):
        stalled(watchdog, left)
    job = job_now(faulty, batch, 2)
    assert (job.state, job.error_code) == (JobState.FAILED, "engine_stalled")
    assert job.error_message == "the engine made no token for 1 s, 1 time"
    now = batch_now(faulty, batch)
    assert (now.succeeded, now.failed, now.finished) == (2, 1, True)
    Snapshot.of(faulty).check()


def test_given_no_database_when_the_engine_hangs_then_the_worker_leaves_all_the_same(
    faulty: FaultyDatabase,
) -> None:
    a_batch(faulty, 3, prompts={2: "[[hang]]"})
    with hanging(faulty) as (_, _, watchdog, left):
        faulty.away.set()
        stalled(watchdog, left)
        assert left == [STALLED]
        faulty.away.clear()


def test_given_an_idle_engine_when_looked_at_then_it_may_be_idle(database: Database) -> None:
    engine = echo()
    left: list[int] = []
    with a_mill(database, engine) as mill:
        config = Settings(model=MODEL, stall_timeout=1)
        watchdog = Watchdog(config, database, engine, mill, worker=1, leave=left.append)
        assert watchdog.look() == pytest.approx(0.5)
        assert left == []


def test_given_a_schema_that_was_changed_when_looked_at_then_the_worker_leaves_once(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    left: list[str] = []
    watch = SchemaWatch(database, interval=5, leave=lambda: left.append("left"))
    assert watch.look() == 5
    assert left == []
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    watch.look()
    watch.look()
    assert left == ["left"]
    assert "the database's schema is 9999 by now" in caplog.text
