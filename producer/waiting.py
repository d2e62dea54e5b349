"""Wait for a batch to finish."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from db.errors import PromptmillError
from db.patience import patiently
from db.records import Batch
from producer.activity import missing_worker

if TYPE_CHECKING:
    from producer.client import Client


def wait(
    client: Client,
    id: str,  # noqa: A002 - what users call it
    *,
    on_progress: Callable[[Batch], None],
    timeout: float | None = None,
    poll: float = 0.5,
    on_missing_worker: Callable[[str], None] = lambda _text: None,
) -> Batch:
    """As `Client.wait`; `on_missing_worker` is called once, at the start, if none serves it."""
    deadline = None if timeout is None else time.monotonic() + timeout
    look, is_first = partial(client.batch, id), True
    while True:
        patience = client.settings.patience
        if deadline is not None:
            patience = min(patience, max(0.0, deadline - time.monotonic()))
        batch = patiently(look, patience)
        # By its id from then on: another batch may get its name meanwhile.
        look = partial(client.batch_by_id, batch.id)
        if is_first and (missing := _missing_worker(client, batch)) is not None:
            on_missing_worker(missing)
        is_first = False
        on_progress(batch)
        if batch.finished:
            return batch
        if deadline is not None and time.monotonic() >= deadline:
            missing = _missing_worker(client, batch)
            reason = "" if missing is None else f": {missing}"
            raise TimeoutError(f"batch {id} is {batch.state} after {timeout:g} s{reason}")
        time.sleep(poll)


def _missing_worker(client: Client, batch: Batch) -> str | None:
    """Which worker the batch lacks, and how to start it; None if it has one or is unknown."""
    try:
        missing = missing_worker(batch, client.workers(), client.settings.engine)
    except PromptmillError:
        return None
    return None if missing is None else ": ".join(missing)
