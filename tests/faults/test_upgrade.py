"""The schema is upgraded under running workers: they stop, lose nothing, and come back."""

from __future__ import annotations

import psutil
from sqlalchemy import text

from db.schema import REVISIONS
from tests.acceptance.mill import Mill, echoing
from tests.faults.proof import begun, proven, queued
from tests.support.processes import eventually

_STEADY = echoing(latency=0.3, capacity=10)


def _revision(mill: Mill, name: str) -> None:
    with mill.client.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :name"), {"name": name})


def test_given_a_busy_worker_when_the_schema_is_upgraded_then_it_stops_and_says_why(
    either: Mill,
) -> None:
    worker = either.worker(_STEADY)
    batch = queued(either)
    begun(either, batch)
    _revision(either, "9999")
    assert worker.ended(30) == 0
    assert (
        f"the database's schema is 9999 by now, and this worker knows {REVISIONS[-1]}: it stops"
        in worker.said()
    )
    assert "Traceback" not in worker.said()
    late = either.start_worker()
    assert late.ended(30) == 1
    assert "newer than this promptmill knows" in late.said()
    _revision(either, REVISIONS[-1])
    either.worker()
    proven(either, batch)


def test_given_a_kept_worker_when_the_schema_is_upgraded_and_back_then_it_comes_by_itself(
    either: Mill,
) -> None:
    keeper = either.start_worker(_STEADY, "--keep")
    keeper.ready()
    batch = queued(either)
    begun(either, batch)
    (first,) = psutil.Process(keeper.process.pid).children()
    _revision(either, "9999")
    eventually(lambda: not first.is_running(), what="the worker has stopped")
    _revision(either, REVISIONS[-1])
    proven(either, batch)
    assert keeper.process.poll() is None
