"""PostgreSQL crashes, restarts and cuts connections: what was generated waits, and is written."""

from __future__ import annotations

import signal
import time

import pytest

from tests.acceptance.mill import QUICK, Mill, echoing
from tests.faults.proof import (
    BUSY,
    JOBS,
    begun,
    cut_connections,
    killed,
    long_or_short,
    proven,
    queued,
    some,
)
from tests.support.processes import eventually
from tests.support.servers import PrivatePostgres

_LEASE = float(QUICK["PROMPTMILL_LEASE"])


@pytest.mark.parametrize("way", some(["immediate"], ["kill", "fast"]))
def test_given_busy_workers_when_postgresql_ends_and_comes_back_then_the_batch_finishes(
    mill: Mill, own_postgres: PrivatePostgres, way: str
) -> None:
    workers = [mill.start_worker(BUSY) for _ in range(2)]
    batch = queued(mill, 2 * JOBS)
    for _ in range(long_or_short(4, 1)):
        mill.until(batch, lambda now: now.done > 0, "begun")
        own_postgres.kill() if way == "kill" else own_postgres.stop(way)  # type: ignore[arg-type]
        eventually(
            lambda: any("waits: " in worker.said() for worker in workers), what="they notice"
        )
        own_postgres.start()
    proven(mill, batch, 2 * JOBS)
    for worker in workers:
        assert worker.process.poll() is None, worker.said()
    for worker in workers:
        assert "Traceback" not in worker.said(), worker.said()


def test_given_postgresql_that_is_away_past_the_lease_when_it_is_back_then_each_job_has_one_result(
    mill: Mill, own_postgres: PrivatePostgres
) -> None:
    workers = [mill.start_worker(BUSY) for _ in range(2)]
    batch = queued(mill, 2 * JOBS)
    begun(mill, batch)
    own_postgres.stop("immediate")
    time.sleep(_LEASE * long_or_short(10, 1.5))  # the fault itself: it lasts so long
    own_postgres.start()
    proven(mill, batch, 2 * JOBS)
    assert all(worker.process.poll() is None for worker in workers)


def test_given_busy_workers_when_every_connection_is_cut_again_and_again_then_the_batch_finishes(
    mill: Mill, own_postgres: PrivatePostgres
) -> None:
    workers = [mill.start_worker(BUSY) for _ in range(2)]
    batch = queued(mill, 2 * JOBS)
    done, cut = 0, 0
    for _ in range(long_or_short(15, 3)):
        now = mill.until(batch, lambda now, past=done: now.done > past, "gone on")  # type: ignore[misc]
        done = now.done
        if now.finished:
            break
        cut += cut_connections(own_postgres.url)
    assert cut > 0
    proven(mill, batch, 2 * JOBS)
    assert all(worker.process.poll() is None for worker in workers)


def test_given_a_worker_that_is_killed_while_postgresql_is_away_then_another_one_finishes(
    mill: Mill, own_postgres: PrivatePostgres
) -> None:
    """Both at once: what the dead one held in memory is generated again."""
    worker = mill.worker(echoing(latency=0.3, capacity=10))
    batch = queued(mill)
    begun(mill, batch)
    own_postgres.stop("immediate")
    eventually(lambda: "waits: " in worker.said(), what="it notices")
    worker.signal(signal.SIGKILL)
    killed(worker)
    own_postgres.start()
    mill.worker()
    proven(mill, batch)
