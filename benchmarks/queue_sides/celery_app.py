"""A Celery application with one task a prompt."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import worker_process_init

from benchmarks.queue_sides import storage

app = Celery("peer", broker=os.environ[storage.REDIS])
app.conf.update(
    task_ignore_result=True, task_acks_late=True, broker_connection_retry_on_startup=True
)


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _own_connections(**_: Any) -> None:
    storage.engine().dispose(close=False)


@app.task(name="store")  # type: ignore[untyped-decorator]
def store(key: int, prompt: str) -> None:
    storage.store([(key, prompt)])
