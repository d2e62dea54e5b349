"""Wait for a batch with a bar for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.records import Batch
from producer.display import note
from producer.progress import BatchProgress

if TYPE_CHECKING:
    from producer.client import Client


def follow(client: Client, batch: Batch, *, poll: float = 0.5) -> Batch:
    """Block until the batch is finished; it. Says so where nobody serves its model yet."""
    if not batch.finished and not any(one.queue == batch.queue for one in client.workers()):
        note(f"no worker serves it yet; start one: promptmill worker --model {batch.model}")
    with BatchProgress(batch) as progress:
        return client.wait(batch.id, on_progress=progress, poll=poll)
