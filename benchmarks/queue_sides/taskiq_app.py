"""A taskiq broker on a Redis stream, and its task."""

from __future__ import annotations

import os

from taskiq_redis import RedisStreamBroker

from benchmarks.queue_sides import storage

broker = RedisStreamBroker(url=os.environ[storage.REDIS])


@broker.task(task_name="store")
def store(key: int, prompt: str) -> None:
    storage.store([(key, prompt)])
