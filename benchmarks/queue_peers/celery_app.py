"""A plain Celery application with one task a prompt, and one that takes them in batches."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import worker_process_init
from celery_batches import Batches

from benchmarks.queue_peers import storage

app = Celery("peer", broker=os.environ[storage.REDIS])
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=16,
    broker_connection_retry_on_startup=True,
)


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _own_connections(**_: Any) -> None:
    storage.engine().dispose(close=False)


@app.task(name="store")  # type: ignore[untyped-decorator]
def store(key: int, prompt: str) -> None:
    storage.store([(key, prompt)])


@app.task(name="store_batch", base=Batches, flush_every=64, flush_interval=0.1)  # type: ignore[untyped-decorator]
def store_batch(requests: Any) -> None:
    storage.store([tuple(request.args) for request in requests])
