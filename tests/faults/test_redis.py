"""Redis dies, forgets, hangs and restarts: the database knows what there is to do."""

from __future__ import annotations

import pytest

from tests.acceptance.mill import Mill, echoing
from tests.faults.proof import BUSY, JOBS, attempts, begun, long_or_short, proven, queued
from tests.support.processes import eventually
from tests.support.servers import PrivateRedis

#: Rounds of losing Redis within one batch.
_ROUNDS = long_or_short(6, 2)


def test_given_busy_workers_when_redis_is_killed_and_comes_back_empty_then_the_batch_finishes(
    either: Mill, own_redis: PrivateRedis
) -> None:
    workers = [either.start_worker(BUSY) for _ in range(2)]
    batch = queued(either, 2 * JOBS)
    begun(either, batch)
    own_redis.restart_empty()
    proven(either, batch, 2 * JOBS)
    assert attempts(either, batch) == {1}

    # And they hear of what comes next
    later = queued(either, 20)
    proven(either, later, 20)
    assert all(worker.process.poll() is None for worker in workers)


def test_given_busy_workers_when_redis_is_flushed_again_and_again_then_the_batch_finishes(
    either: Mill, own_redis: PrivateRedis
) -> None:
    either.worker(BUSY)
    batch = queued(either, 2 * JOBS)
    done = 0
    for _ in range(_ROUNDS):
        done = either.until(batch, lambda now, past=done: now.done > past, "gone on").done  # type: ignore[misc]
        with own_redis.client() as client:
            client.flushall()
    proven(either, batch, 2 * JOBS)
    assert attempts(either, batch) == {1}


@pytest.mark.timeout(400)
def test_given_busy_workers_when_redis_hangs_then_they_go_on_from_the_database_alone(
    mill: Mill, own_redis: PrivateRedis
) -> None:
    worker = mill.worker(echoing(latency=0.5, capacity=20))
    first, second = queued(mill), queued(mill)
    begun(mill, first)
    with own_redis.paused():
        before = mill.client.batch(second).done
        mill.until(second, lambda now: now.done > before + 60, "going on without Redis")
        if seconds := long_or_short(90, 0):
            own_redis.pause(seconds)
    proven(mill, first)
    proven(mill, second)
    assert attempts(mill, first) == attempts(mill, second) == {1}
    later = queued(mill, 20)
    proven(mill, later, 20)
    assert worker.process.poll() is None


@pytest.mark.timeout(600)
def test_given_no_op_load_when_redis_restarts_four_times_then_the_worker_lives_and_consumes(
    mill: Mill, own_redis: PrivateRedis
) -> None:
    """Kombu alone dies of this in half the trials, or stops to consume: see worker/redis_qos."""
    for _ in range(long_or_short(5, 1)):
        mill.env["PROMPTMILL_CHUNK_SIZE"] = "1"
        worker = mill.worker()
        batches = []
        for _ in range(4):
            batches.append(queued(mill, 300))
            begun_or_done(mill, batches[-1])
            own_redis.kill()
            own_redis.start()
        for batch in batches:
            proven(mill, batch, 300)
            assert attempts(mill, batch) == {1}
        assert worker.process.poll() is None, worker.said()
        consumes(mill, own_redis)
        worker.kill()


def begun_or_done(mill: Mill, batch: str) -> None:
    mill.until(batch, lambda now: now.done > 0, "begun")


def consumes(mill: Mill, server: PrivateRedis) -> None:
    """The worker still takes messages from its queue; not only chunks from the database."""
    batch = queued(mill, 300)
    proven(mill, batch, 300)

    def waiting() -> int:
        with server.client() as client:
            names = [key for key in client.keys("*promptmill.test-echo*") if b"_kombu" not in key]
            return sum(int(client.llen(name)) for name in names if client.type(name) == b"list")

    eventually(lambda: waiting() == 0, what="no message is left lying")
