"""A Celery application with one task a prompt."""

from __future__ import annotations

import os
import sys
from typing import Any

from celery import Celery
from celery.signals import worker_process_init

from benchmarks.queue_sides import storage

app = Celery("peer", broker=os.environ[storage.REDIS])
app.conf.update(
    task_ignore_result=True, task_acks_late=True, broker_connection_retry_on_startup=True
)


@worker_process_init.connect
def _own_connections(**_: Any) -> None:
    storage.engine().dispose(close=False)


@app.task(name="store")
def store(key: int, prompt: str) -> None:
    storage.store([(key, prompt)])


def command(module: str, *, processes: int, prefetch: int) -> list[str]:
    """Starts a worker of the application in `benchmarks.queue_sides.MODULE`."""
    return [
        sys.executable, "-m", "celery", "-A", f"benchmarks.queue_sides.{module}", "worker",
        "--loglevel=ERROR", f"--concurrency={processes}", f"--prefetch-multiplier={prefetch}",
    ]  # fmt: skip
