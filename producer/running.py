"""Generate a batch with a worker of our own: the middle of `promptmill run`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from db.errors import EngineError, PromptmillError, UsageError
from db.records import Batch
from db.settings import variable
from producer.activity import standing
from producer.display import note
from producer.following import Follower, suggest_export
from producer.interrupts import first_interrupts, reported
from producer.local_worker import KeptWorker
from producer.progress import BatchProgress
from producer.waiting import wait

if TYPE_CHECKING:
    from producer.client import Client

#: Seconds that a worker has for its last writes, on top of its grace.
_LAST_WRITES = 15.0
#: Seconds that a worker has that is still loading: it has nothing to finish.
_LOADING_GRACE = 2.0
_POLL = 0.2


def generate(
    client: Client,
    batch: Batch,
    environment: Mapping[str, str],
    *,
    new: bool,
    again: str,
    advice: str | None = None,
) -> Batch:
    """Have a worker for this batch alone until it is finished; Ctrl-C stops both.

    `again` is what continues it, in words for people. A worker that can't even start takes a
    `new` batch with it: nothing is left half done. `advice`: what to do then.
    """
    own = {variable("model"): batch.model, variable("batch"): batch.id}
    worker = KeptWorker({**environment, **own}, client.settings.home, note)
    patience = client.settings.grace + _LAST_WRITES
    try:
        with (
            first_interrupts(then=worker.hurry),
            BatchProgress(own=lambda: worker.loading() or f"loading {batch.model}") as progress,
        ):
            follower = Follower(client, progress)
            try:
                return _followed(client, batch, worker, follower)
            except KeyboardInterrupt as error:
                _stop(client, worker, follower)
                progress.stop()
                last = follower.batch or batch
                note(f"{standing(last)}; run {again} to continue")
                suggest_export(last)
                raise reported(error) from None
    except PromptmillError as error:
        if new and client.batch(batch.id).started_at is None:
            client.cancel(batch.id)
            client.delete(batch.id)
            if advice is not None:
                raise _with_advice(error, advice) from None
        raise
    finally:
        worker.stop(patience)


def _with_advice(error: PromptmillError, advice: str) -> PromptmillError:
    """The error of a worker that could not start, and what to do."""
    match error:
        case UsageError():
            return UsageError(*error.faults, advice)
        case EngineError():
            return EngineError(f"{error.message}; {advice}")
    return error


def _followed(client: Client, batch: Batch, worker: KeptWorker, follower: Follower) -> Batch:
    loading = _Loading(worker)

    def on_progress(now: Batch) -> None:
        follower(now)
        loading(now)
        worker.look(now)

    return wait(client, batch.id, on_progress=on_progress, poll=_POLL)


class _Loading:
    """Repeats in a log what the worker says while it loads; the live display shows it anyway."""

    def __init__(self, worker: KeptWorker) -> None:
        self._worker = worker
        self._shown: str | None = None

    def __call__(self, batch: Batch) -> None:
        if batch.started_at is not None or sys.stderr.isatty():
            return
        stage = self._worker.loading()
        if stage is not None and stage != self._shown:
            note(stage)
            self._shown = stage


def _stop(client: Client, worker: KeptWorker, follower: Follower) -> None:
    """Have the worker finish what runs, and show it; one that is still loading ends at once."""
    grace = client.settings.grace
    follower.refresh()
    _show(client, follower, ending="stopping")
    if follower.generating:
        note(f"stopping: what runs may finish, for up to {grace:g} s; Ctrl-C again to stop now")
    else:
        note("stopping")
    worker.begin_stop()
    begun, hurried = time.monotonic(), False
    while worker.alive:
        limit = grace + _LAST_WRITES if follower.generating else _LOADING_GRACE
        if time.monotonic() - begun > limit:
            break
        if worker.hurried and not hurried:
            hurried = True
            note("stopping now: what is unfinished goes back to the queue")
        finishing = "finishing what runs; Ctrl-C again to stop now"
        now = finishing if follower.generating else "stopping"
        _show(client, follower, ending="stopping now" if hurried else now)
        time.sleep(_POLL)
    worker.stop(0.0)
    _show(client, follower, ending="stopped")


def _show(client: Client, follower: Follower, *, ending: str) -> None:
    # Where the database is away, the worker still ends.
    if follower.batch is not None:
        with suppress(PromptmillError):
            follower(client.batch(follower.batch.id), ending=ending)
