"""What an invariant is, what it is asked of, and what breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, true

from db.states import BATCH_TERMINAL, BatchState, ChunkState

#: Seconds after its end within which a lease must have been noticed: ten leases by default.
OVERDUE = 300.0

#: Chunks of which a worker may still make something.
OPEN_CHUNK = [ChunkState.QUEUED, ChunkState.RUNNING, ChunkState.HELD]
#: Batches that are submitted and have not ended.
OPEN_BATCH = [
    state for state in BatchState if state not in {*BATCH_TERMINAL, BatchState.VALIDATING}
]

Thing = Literal["batch", "job", "chunk"]


@dataclass(frozen=True, slots=True)
class Scope:
    """One batch (its key) or all of them, at the moment `now` of the database's clock."""

    dialect: str
    now: float
    batch: int | None = None
    overdue: float = OVERDUE

    def covers(self, batch_key: ColumnElement[int]) -> ColumnElement[bool]:
        return true() if self.batch is None else batch_key == self.batch


#: Which rows break an invariant: `batch_id` and `item`, a job's line, a chunk's or batch's id.
Broken = Callable[[Scope], Select[Any]]


@dataclass(frozen=True, slots=True)
class Invariant:
    name: str
    #: What holds, as a sentence.
    promise: str
    #: What `item` is.
    thing: Thing
    broken: Broken
    #: What to do where it does not hold.
    advice: str


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that does not hold, and where."""

    name: str
    promise: str
    thing: Thing
    count: int
    #: The first few: `BATCH`, `BATCH-LINE`, or `chunk 7 of BATCH`.
    examples: tuple[str, ...]
    advice: str
