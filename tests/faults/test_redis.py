"""Redis dies, forgets, hangs and restarts: the database knows what there is to do."""

from __future__ import annotations

import pytest

from db.ids import queue_name
from producer import Client
from tests.acceptance.mill import Mill, echoing
from tests.faults.proof import BUSY, JOBS, attempts, begun, long_or_short, proven, queued
from tests.support.processes import WorkerProcess, eventually
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


#: A message each; nothing to do for any, so that Redis is in the middle of many at any moment.
_NO_OPS = 1_000


@pytest.mark.timeout(600)
@pytest.mark.parametrize("trial", range(long_or_short(6, 1)))
def test_given_no_op_load_when_redis_restarts_four_times_then_the_worker_lives_and_consumes(
    mill: Mill, own_redis: PrivateRedis, trial: int
) -> None:
    """Kombu alone often dies of this, or consumes no more: see worker/transport.py."""
    mill.env["PROMPTMILL_CHUNK_SIZE"] = "1"
    batch = _queued_singly(mill, _NO_OPS)
    worker = mill.worker()
    for _ in range(4):
        _consumed(mill, own_redis, worker)
        own_redis.kill()
        own_redis.start()
    _consumed(mill, own_redis, worker)
    proven(mill, batch, _NO_OPS)
    assert attempts(mill, batch) == {1}
    eventually(lambda: _waiting(mill, own_redis) == 0, what="no message is left lying")
    assert worker.process.poll() is None, worker.said()


def _queued_singly(mill: Mill, total: int) -> str:
    """A batch of numbered prompts, a chunk and a message each."""
    with Client(mill.client.settings.with_(chunk_size=1)) as client:
        return client.submit(mill.numbered(total), model=mill.model).id


def _consumed(mill: Mill, server: PrivateRedis, worker: WorkerProcess) -> None:
    """Wait until the worker has taken some messages more; not only chunks from the database."""
    before = _waiting(mill, server)
    assert before > 50, "the test is too slow for its batch"

    def look() -> bool:
        assert worker.process.poll() is None, worker.said()
        return _waiting(mill, server) < before - 20

    eventually(look, what="messages are consumed")


def _waiting(mill: Mill, server: PrivateRedis) -> int:
    """Messages in the queue of the installation's model."""
    with server.client() as client:
        keys = client.keys(f"*{queue_name(mill.model)}*")
        return sum(client.llen(key) for key in keys if client.type(key) == b"list")
