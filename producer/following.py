"""Wait for a batch, and show how it goes."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from db.errors import PromptmillError
from db.records import Batch, Pace
from db.states import BatchState
from producer.activity import missing_worker, standing
from producer.display import note, note_command
from producer.interrupts import reported
from producer.progress import BatchProgress
from producer.waiting import wait

if TYPE_CHECKING:
    from producer.client import Client

#: Seconds between two looks at the workers: they report every 2 seconds.
_LOOK = 1.0


def follow(client: Client, batch: Batch, *, poll: float = 0.5) -> Batch:
    """Block until the batch is finished; it. Says so where nobody serves its model yet.

    Ctrl-C ends the waiting alone, and says that too.
    """
    progress: Follower | None = None
    try:
        suggest_worker(client, batch)
        with BatchProgress() as shown:
            progress = Follower(client, shown)
            return wait(client, batch.id, on_progress=progress, poll=poll)
    except KeyboardInterrupt as error:
        last = (progress and progress.batch) or batch
        note(f"{standing(last)}; Ctrl-C ended the waiting, not the batch")
        note_command("follow it again", f"promptmill watch {batch.id}")
        suggest_export(last)
        raise reported(error) from None


def suggest_worker(client: Client, batch: Batch) -> None:
    """Say what starts a worker, where the batch waits for one."""
    missing = missing_worker(batch, client.workers(), client.settings.engine)
    if missing is not None:
        note_command(*missing)


def suggest_export(batch: Batch) -> None:
    """Say how to get at what is done so far, if anything is."""
    if batch.run_count:
        note_command("export what is done", f"promptmill results {batch.id} -o FILE")


class Follower:
    """Shows a batch at every poll, with what its workers report."""

    def __init__(self, client: Client, progress: BatchProgress) -> None:
        self._client = client
        self._progress = progress
        self._pauses = Pauses()
        self._looked = 0.0
        #: As they were last.
        self.batch: Batch | None = None
        self.pace: Pace | None = None

    def __call__(self, batch: Batch, *, ending: str | None = None) -> None:
        """`ending`: how it is being stopped."""
        self.batch = batch
        if time.monotonic() - self._looked >= _LOOK:
            self._look(batch)
        self._progress(batch, self.pace, ending=ending)
        self._pauses(batch)

    def refresh(self) -> None:
        """Look at the workers at the next poll, however short ago the last look was."""
        self._looked = 0.0

    @property
    def generating(self) -> bool:
        """Whether a worker held jobs of it at the last look."""
        return self.pace is not None and self.pace.working > 0

    def _look(self, batch: Batch) -> None:
        try:
            self.pace = self._client.pace(batch)
        except PromptmillError:
            self.pace = None  # the next poll reports it, or waits
        self._looked = time.monotonic()


class Pauses:
    """Says so in a log when the batch is paused; the live display shows it anyway."""

    def __init__(self) -> None:
        self._was_paused = sys.stderr.isatty()

    def __call__(self, batch: Batch) -> None:
        """Take note of where the batch stands now."""
        paused = batch.state == BatchState.PAUSED
        if paused and not self._was_paused:
            note(f"{batch.id} is paused: 'promptmill resume {batch.id}' continues it")
        self._was_paused = paused or sys.stderr.isatty()
