"""One claimed chunk while it is being generated."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from enum import Enum
from typing import Any

from db.exact_json import dumps
from db.records import Claim, ClaimedJob
from db.sampling import Params, merge


class Ending(Enum):
    """How a worker's time with a chunk ends; all of them are fine."""

    #: Every job has its outcome in the database, retries included.
    WRITTEN = "written"
    #: Handed back, unfinished jobs and all, with no attempt spent.
    RELEASED = "released"
    #: The lease is not ours any more: cancelled, paused, or somebody else's now.
    LOST = "lost"
    #: There was nothing to do: a second message, or a chunk that is done.
    GONE = "gone"


class Run:
    """A chunk under lease: which of its jobs are still open, and how it ended.

    Threads: the engine's answers jobs, the heartbeat loses it, a slot waits for its end.
    """

    def __init__(self, claim: Claim, *, received_at: float) -> None:
        """`received_at`: this process's unix time at the claim, to compare the clocks."""
        self.claim = claim
        self.clock_offset = claim.now - received_at
        #: Failed attempts of the job of this chunk that has most, and is to be tried again.
        self.retry_attempt = 0
        #: Whether its end is on its way to the database: it can't be lost any more.
        self.closing = False
        #: Whether a job was cancelled and stays open.
        self.cut_short = False
        self.ending: Ending | None = None
        self._open = {self.request_id(job.line): job for job in claim.jobs}
        self._params: dict[bytes, Params] = {}
        self._unsettled = len(claim.jobs)
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def params(self, overrides: Mapping[str, Any] | None) -> Params:
        """The batch's parameters under a job's own, of the mode's kind. Raises ParameterError.

        Most jobs of a chunk have the same: each different set is validated once.
        """
        key = dumps(overrides)
        params = self._params.get(key)
        if params is None:
            claim = self.claim
            params = self._params[key] = merge(claim.params, overrides or {}, claim.mode)
        return params

    def request_id(self, line: int) -> str:
        """Unique among all claims ever: a chunk that comes back has another token."""
        return f"{self.claim.batch_uid}-{line}:{self.claim.token}"

    @property
    def open_requests(self) -> list[str]:
        with self._lock:
            return list(self._open)

    @property
    def over(self) -> bool:
        """Whether it has ended, or its end is on its way."""
        return self.ending is not None or self.closing

    def replaced(self, old: str, new: str) -> bool:
        """The job of request `old` is asked again as `new`; False: not any more."""
        with self._lock:
            if self.over or old not in self._open:
                return False
            self._open[new] = self._open.pop(old)
            return True

    def answered(self, request_id: str) -> ClaimedJob | None:
        """Strike a job off; None where it was off already, or the run has ended."""
        with self._lock:
            return None if self.ending is not None else self._open.pop(request_id, None)

    def settled(self) -> bool:
        """An answered job's outcome is on its way; whether it was the last of the run.

        Apart from `answered`, so that no other thread can take the run for complete before the
        outcome is in the flusher's queue.
        """
        with self._lock:
            self._unsettled -= 1
            return self._unsettled == 0

    @property
    def finished(self) -> bool:
        """Whether nothing of it is left to do, once it has answered."""
        return not self.cut_short and self.retry_attempt == 0

    def end(self, ending: Ending) -> bool:
        """End the run, once; whether this call did."""
        with self._lock:
            if self.ending is not None:
                return False
            self.ending = ending
        self._ended.set()
        return True

    def wait(self) -> Ending:
        """Block until the run has ended."""
        self._ended.wait()
        if self.ending is None:
            raise RuntimeError("a run ended without an ending")
        return self.ending
