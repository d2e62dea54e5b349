"""Generate a batch with a worker of our own: the middle of `promptmill run`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from db.errors import PromptmillError
from db.records import Batch
from db.settings import variable
from producer.display import note
from producer.following import Pauses
from producer.interrupts import first_interrupts
from producer.local_worker import KeptWorker
from producer.progress import BatchProgress

if TYPE_CHECKING:
    from producer.client import Client

#: Seconds that a worker has for its last writes, on top of its grace.
_LAST_WRITES = 15.0


def generate(
    client: Client, batch: Batch, environment: Mapping[str, str], *, new: bool, again: str
) -> Batch:
    """Have a worker for this batch alone until it is finished; Ctrl-C stops both.

    `again` is what goes on with it, in words for people. A worker that can't even start takes a
    `new` batch with it: nothing is left half done.
    """
    own = {variable("model"): batch.model, variable("batch"): batch.id}
    worker = KeptWorker({**environment, **own}, client.settings.home, note)
    patience = client.settings.grace + _LAST_WRITES
    try:
        with first_interrupts(then=worker.hurry), BatchProgress(batch) as progress:
            try:
                return _followed(client, batch, worker, progress)
            except KeyboardInterrupt:
                progress.stop()
                note(
                    f"stopping: finishing for up to {client.settings.grace:g} s; Ctrl-C again to "
                    f"stop now. {again} goes on where this one ends"
                )
                worker.stop(patience)
                raise
    except PromptmillError:
        if new and client.batch(batch.id).started_at is None:
            client.cancel(batch.id)
            client.delete(batch.id)
        raise
    finally:
        worker.stop(patience)


def _followed(client: Client, batch: Batch, worker: KeptWorker, progress: BatchProgress) -> Batch:
    pauses, loading = Pauses(), _Loading(worker)

    def on_progress(now: Batch) -> None:
        progress(now)
        pauses(now)
        loading(now)
        worker.look(now)

    return client.wait(batch.id, on_progress=on_progress, poll=0.2)


class _Loading:
    """Repeats what the worker says while it loads its model."""

    def __init__(self, worker: KeptWorker) -> None:
        self._worker = worker
        self._shown: str | None = None

    def __call__(self, batch: Batch) -> None:
        if batch.started_at is not None:
            return
        stage = self._worker.loading()
        if stage is not None and stage != self._shown:
            note(stage)
            self._shown = stage
