"""Workers that are told to stop, twice, or are killed: the others finish, every job once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.states import JobState
from tests.acceptance.mill import Mill, echoing, processes_of
from tests.support.processes import WorkerProcess, environment, eventually

#: 600 jobs of this take a worker some 6 s: time to stop it in the middle.
_BUSY = echoing(latency=0.1, capacity=10)
_JOBS = 600


def _jobs_of(mill: Mill, worker: WorkerProcess) -> int:
    return sum(one.jobs for one in mill.client.workers() if one.pid == worker.process.pid)


def _busy(mill: Mill, worker: WorkerProcess) -> None:
    """Wait until the worker has done something, by its own heartbeat."""
    eventually(lambda: _jobs_of(mill, worker) > 0, what="the worker works")


def test_given_two_busy_workers_when_one_is_told_to_stop_then_it_finishes_and_the_other_goes_on(
    mill: Mill,
) -> None:
    stopped, other = mill.start_worker(_BUSY), mill.start_worker(_BUSY)
    stopped.ready(), other.ready()
    batch = mill.submit(_JOBS)
    _busy(mill, stopped)

    stopped.signal(signal.SIGTERM)

    assert stopped.ended(20) == 0
    assert "stopping: finishing for up to 30 s" in stopped.said()
    assert not mill.client.batch(batch).finished, "the test is too slow for its batch"
    mill.finished(batch)
    assert set(mill.shares(batch)) == {str(stopped.process.pid), str(other.process.pid)}
    assert {result.attempts for result in mill.client.results(batch)} == {1}


def test_given_no_grace_when_told_to_stop_then_unfinished_jobs_go_back_without_an_attempt(
    mill: Mill,
) -> None:
    stopped = mill.worker(_BUSY, PROMPTMILL_GRACE="0")
    batch = mill.submit(_JOBS)
    _busy(mill, stopped)

    stopped.signal(signal.SIGTERM)

    assert stopped.ended(20) == 0
    assert "handed back" in stopped.said()
    left = [line for line in range(1, _JOBS + 1) if mill.job(batch, line).state == JobState.QUEUED]
    assert left, "the test is too slow for its batch"
    assert all(mill.job(batch, line).attempts == 0 for line in left[:20])
    mill.worker(echoing())
    mill.finished(batch)
    mill.shares(batch)
    assert {result.attempts for result in mill.client.results(batch)} == {1}


def test_given_an_embedded_broker_when_its_last_worker_stops_then_the_messages_go_back_in_peace(
    embedded: Mill,
) -> None:
    """The broker ends after the last message was handed back, not before."""
    worker = embedded.worker(_BUSY, PROMPTMILL_GRACE="0")
    batch = embedded.submit(_JOBS)
    _busy(embedded, worker)

    worker.signal(signal.SIGTERM)

    assert worker.ended(20) == 0
    assert not embedded.client.batch(batch).finished, "the test is too slow for its batch"
    assert "Traceback" not in worker.said()
    assert "ERROR" not in worker.said()
    home = embedded.folder / "home"
    eventually(lambda: not processes_of(home), what="no process is left", deadline=30)


def test_given_a_job_that_never_ends_when_told_twice_to_stop_then_the_worker_stops_at_once(
    mill: Mill,
) -> None:
    worker = mill.worker(echoing(faults=True))
    file = mill.prompts(["[[hang]]"])
    batch = mill.ok("submit", file, "--model", mill.model).strip()
    eventually(lambda: mill.job(batch, 1).state == JobState.RUNNING, what="the job runs")

    worker.signal(signal.SIGTERM)
    eventually(lambda: "stopping: finishing" in worker.said(), what="it finishes")
    assert worker.process.poll() is None
    begun = time.monotonic()
    worker.signal(signal.SIGTERM)

    assert worker.ended(20) == 0
    assert time.monotonic() - begun < 10  # of a grace of 30
    job = mill.job(batch, 1)
    assert (job.state, job.attempts) == (JobState.QUEUED, 0)


def test_given_two_busy_workers_when_one_is_killed_then_the_other_does_its_jobs(
    mill: Mill,
) -> None:
    killed, other = mill.start_worker(_BUSY), mill.start_worker(_BUSY)
    killed.ready(), other.ready()
    batch = mill.submit(_JOBS)
    _busy(mill, killed)

    killed.kill()

    assert not mill.client.batch(batch).finished, "the test is too slow for its batch"
    found = mill.finished(batch)
    assert (found.succeeded, found.failed) == (_JOBS, 0)
    shares = mill.shares(batch)
    assert shares[str(other.process.pid)] > shares[str(killed.process.pid)]
    assert {result.attempts for result in mill.client.results(batch)} <= {1, 2}


def test_given_a_prompt_that_kills_its_worker_when_it_runs_then_it_alone_is_given_up(
    mill: Mill,
) -> None:
    file = mill.prompts(["before", "[[exit]]", "after"])
    batch = mill.ok("submit", file, "--model", mill.model).strip()

    for _ in range(5):  # one at a time, until all is done
        if not mill.client.batch(batch).finished:
            _wait_for_its_end(mill.start_worker(echoing(latency=0.5, faults=True)), mill, batch)

    found = mill.client.batch(batch)
    assert (found.succeeded, found.failed) == (2, 1)
    job = mill.job(batch, 2)
    assert (job.state, job.error_code, job.attempts) == (JobState.FAILED, "worker_lost", 3)
    assert "3 times" in str(job.error_message)


def _wait_for_its_end(worker: WorkerProcess, mill: Mill, batch: str) -> None:
    eventually(
        lambda: worker.process.poll() is not None or mill.client.batch(batch).finished,
        what="the worker dies, or all is done",
    )


@pytest.fixture
def plain_celery(mill: Mill, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Celery's own command line, with promptmill's settings in the environment."""
    own = {"PROMPTMILL_MODEL": mill.model, "PROMPTMILL_ENGINE_OPTIONS": _BUSY}
    with (tmp_path / "celery.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "--loglevel", "INFO"],
            env=environment({**mill.env, **own}),
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    yield process
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_given_celerys_own_command_line_when_it_works_then_it_is_a_worker_like_any_other(
    mill: Mill, plain_celery: subprocess.Popen[bytes]
) -> None:
    batch = mill.submit(60)
    mill.finished(batch)
    assert mill.shares(batch) == {str(plain_celery.pid): 60}
    plain_celery.send_signal(signal.SIGTERM)
    assert plain_celery.wait(20) == 0
    assert not mill.client.workers()
