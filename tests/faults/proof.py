"""The promise, to be proved at the end of every fault: each prompt ended, once, with one result."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import psycopg

from db.records import Batch
from db.states import ChunkState, JobState
from tests.acceptance.mill import Mill, echoing
from tests.support.invariants import Snapshot
from tests.support.processes import WorkerProcess, eventually

T = TypeVar("T")

#: `make test-faults FAULTS=long`: every moment, more rounds, longer pauses.
LONG = os.environ.get("PROMPTMILL_TEST_FAULTS") == "long"

#: The module of a worker that breaks itself.
SABOTEUR = "tests.faults.saboteur"

#: 200 jobs of this take a worker some 2 s: time to break something in the middle.
BUSY = echoing(latency=0.1, capacity=10)
JOBS = 200


def long_or_short(long: T, short: T) -> T:
    return long if LONG else short


def some(wanted: Sequence[T], more: Sequence[T]) -> list[T]:
    """The moments of the short form, and those that the long form adds."""
    return [*wanted, *more] if LONG else list(wanted)


def queued(mill: Mill, total: int = JOBS) -> str:
    """A batch of numbered prompts, submitted from Python: quicker than by the command line."""
    return mill.client.submit(mill.numbered(total), model=mill.model).id


def begun(mill: Mill, batch: str) -> None:
    """Wait until the batch is in its middle."""
    found = mill.until(batch, lambda now: now.done > 0, "begun")
    assert not found.finished, "the test is too slow for its batch"


def killed(worker: WorkerProcess) -> None:
    """Wait until the worker has died of SIGKILL, by its own hand or another's."""
    code = worker.ended()
    assert code == -9, (code, worker.said())


def proven(
    mill: Mill, batch: str, total: int = JOBS, *, failed: Mapping[int, str] | None = None
) -> Batch:
    """Wait for the end; each line of numbered prompts has one result, but `failed` (line: code)."""
    found = mill.finished(batch)
    given_up = dict(failed or {})
    eventually(lambda: _all_done(mill), what="every chunk is done")
    snapshot = Snapshot.of(mill.client.database)
    snapshot.check()
    jobs = [job for job in snapshot.jobs if job.batch_id == found.key]
    results = [one for one in snapshot.results if one.batch_id == found.key]
    lines = range(1, total + 1)
    assert sorted(job.line for job in jobs) == list(lines)
    assert Counter((one.line, one.sample) for one in results) == Counter(
        (line, 0) for line in lines if line not in given_up
    )
    assert {job.line: job.error_code for job in jobs if job.state != JobState.SUCCEEDED} == given_up
    assert (found.total, found.succeeded, found.failed) == (
        total, total - len(given_up), len(given_up),
    )  # fmt: skip
    for one in results:
        assert sorted(one.text.split()) == sorted(f"n{one.line} of many".split()), one
    return found


def attempts(mill: Mill, batch: str) -> set[int]:
    """How many attempts the jobs of a batch have taken."""
    return {one.attempts for one in mill.client.results(batch)}


def _all_done(mill: Mill) -> bool:
    return {chunk.state for chunk in Snapshot.of(mill.client.database).chunks} <= {ChunkState.DONE}


def cut_connections(url: str) -> int:
    """Have PostgreSQL end every connection of promptmill's; how many there were."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        rows = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return len(rows.fetchall())
