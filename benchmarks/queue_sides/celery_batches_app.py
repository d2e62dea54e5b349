"""The same with celery-batches: up to 64 prompts are stored together."""

from __future__ import annotations

from typing import Any

from celery_batches import Batches

from benchmarks.queue_sides import storage
from benchmarks.queue_sides.celery_app import app


@app.task(name="store_batch", base=Batches, flush_every=64, flush_interval=0.1)
def store_batch(requests: Any) -> None:
    storage.store([tuple(request.args) for request in requests])
