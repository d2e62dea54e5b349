"""A Dramatiq actor, a message a prompt."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.queue_sides import storage

broker = RedisBroker(url=os.environ[storage.REDIS])
dramatiq.set_broker(broker)


@dramatiq.actor
def store(key: int, prompt: str) -> None:
    storage.store([(key, prompt)])
