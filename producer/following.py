"""Wait for a batch with a bar for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.records import Batch
from producer.progress import BatchProgress

if TYPE_CHECKING:
    from producer.client import Client


def follow(client: Client, batch: Batch, *, poll: float = 0.5) -> Batch:
    """Block until the batch is finished; it."""
    with BatchProgress(batch) as progress:
        return client.wait(batch.id, on_progress=progress, poll=poll)
