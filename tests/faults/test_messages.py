"""Messages that come twice, in the wrong order, or as noise: a chunk is claimed once.

What a forged message may do, and may not: tests/security.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import redis

from db.ids import queue_name
from tests.acceptance.mill import Mill
from tests.faults.proof import BUSY, attempts, proven, queued
from tests.support.servers import PrivateRedis

Tamper = Callable[[list[bytes]], list[bytes]]

_RANDOM = random.Random(7)


def _twice(messages: list[bytes]) -> list[bytes]:
    return [one for message in messages for one in (message, message)]


def _shuffled(messages: list[bytes]) -> list[bytes]:
    return _RANDOM.sample(messages, len(messages))


@pytest.mark.parametrize("tamper", [_twice, _shuffled])
def test_given_messages_when_they_are_tampered_with_then_the_batch_finishes_and_no_job_runs_twice(
    either: Mill, own_redis: PrivateRedis, tamper: Tamper
) -> None:
    batch = queued(either)
    with own_redis.client() as client:
        _rewrite(client, either, tamper)
    workers = [either.start_worker(BUSY) for _ in range(2)]
    proven(either, batch)
    assert attempts(either, batch) == {1}
    assert all(worker.process.poll() is None for worker in workers)
    later = queued(either, 20)
    proven(either, later, 20)


def test_given_random_bytes_for_a_message_when_a_kept_worker_gets_them_then_the_batch_finishes(
    either: Mill, own_redis: PrivateRedis
) -> None:
    batch = queued(either)
    with own_redis.client() as client:
        _rewrite(client, either, lambda messages: [*messages, _RANDOM.randbytes(300)])
    keeper = either.start_worker(BUSY, "--keep")
    proven(either, batch)
    assert keeper.process.poll() is None


def _rewrite(client: redis.Redis, mill: Mill, tamper: Tamper) -> None:
    names = [key for key in client.keys("*") if queue_name(mill.model).encode() in key]
    lists = [key for key in names if client.type(key) == b"list"]
    assert len(lists) == 1, lists
    messages = client.lrange(lists[0], 0, -1)
    assert len(messages) > 20
    client.delete(lists[0])
    client.rpush(lists[0], *tamper([one for one in messages if isinstance(one, bytes)]))
