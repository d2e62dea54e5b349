"""Wait for a batch with a bar for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.records import Batch
from db.states import BatchState
from producer.display import note
from producer.progress import BatchProgress

if TYPE_CHECKING:
    from producer.client import Client


def follow(client: Client, batch: Batch, *, poll: float = 0.5) -> Batch:
    """Block until the batch is finished; it. Says so where nobody serves its model yet.

    Ctrl-C ends the waiting alone, and says that too.
    """
    try:
        if not batch.finished and not any(one.queue == batch.queue for one in client.workers()):
            note(f"no worker serves it yet; start one: promptmill worker --model {batch.model}")
        return _followed(client, batch, poll)
    except KeyboardInterrupt:
        note(f"{batch.id} goes on without you; 'promptmill watch {batch.id}' follows it again")
        raise


def _followed(client: Client, batch: Batch, poll: float) -> Batch:
    pauses = Pauses()
    with BatchProgress(batch) as progress:

        def on_progress(now: Batch) -> None:
            progress(now)
            pauses(now)

        return client.wait(batch.id, on_progress=on_progress, poll=poll)


class Pauses:
    """Says so when the batch that somebody waits for is paused, and how it goes on."""

    def __init__(self) -> None:
        self._told = False

    def __call__(self, batch: Batch) -> None:
        """Hear where the batch stands now."""
        paused = batch.state == BatchState.PAUSED
        if paused and not self._told:
            note(f"{batch.id} is paused: 'promptmill resume {batch.id}' lets it go on")
        self._told = paused
