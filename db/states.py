"""The states of a batch, of a job and of a chunk: one enum, one diagram, one table each.

Batch
                    ┌────────────── resume ──────────────┐
                    ▼                                    │
    validating ─► queued ─► in_progress ─► finalizing ─► completed
        │           │  └─────────┬──── pause ─► paused       │
        ▼           │            │               │           │ retry
      failed        └────────────┴── cancel ─────┘           ▼
                                 │                       in_progress
                                 ▼
                             cancelling ─► cancelled        expired (past its deadline)

Job
    queued ─► running ─► succeeded
      ▲  ▲       │  ├──► failed ──► queued (retry, by hand)
      │  └───────┘  ├──► cancelled
      │ released,   └──► expired
      │ retriable

`running` is never stored for a job: a job runs while the chunk that holds it is leased. That
makes a claim one row, however many jobs a chunk has.

Chunk
    queued ◄─► running ─► done
      ▲ ▼        │
      held ◄─────┘   (its batch is paused)
"""

from __future__ import annotations

from enum import StrEnum

from db.errors import ConflictError, UsageError


class BatchState(StrEnum):
    VALIDATING = "validating"
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    PAUSED = "paused"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class ChunkState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    HELD = "held"
    DONE = "done"


_B, _J, _C = BatchState, JobState, ChunkState

BATCH_TRANSITIONS: dict[BatchState, frozenset[BatchState]] = {
    _B.VALIDATING: frozenset({_B.QUEUED, _B.COMPLETED, _B.FAILED}),
    _B.QUEUED: frozenset({_B.IN_PROGRESS, _B.PAUSED, _B.CANCELLING, _B.COMPLETED, _B.EXPIRED}),
    _B.IN_PROGRESS: frozenset({_B.PAUSED, _B.FINALIZING, _B.COMPLETED, _B.CANCELLING, _B.EXPIRED}),
    _B.PAUSED: frozenset({_B.QUEUED, _B.IN_PROGRESS, _B.COMPLETED, _B.CANCELLING, _B.EXPIRED}),
    _B.FINALIZING: frozenset({_B.COMPLETED, _B.CANCELLING}),
    _B.COMPLETED: frozenset({_B.IN_PROGRESS}),
    _B.FAILED: frozenset(),
    _B.CANCELLING: frozenset({_B.CANCELLED}),
    _B.CANCELLED: frozenset({_B.IN_PROGRESS}),
    _B.EXPIRED: frozenset({_B.IN_PROGRESS}),
}

JOB_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    _J.QUEUED: frozenset({_J.RUNNING, _J.FAILED, _J.CANCELLED, _J.EXPIRED}),
    _J.RUNNING: frozenset({_J.QUEUED, _J.SUCCEEDED, _J.FAILED, _J.CANCELLED, _J.EXPIRED}),
    _J.SUCCEEDED: frozenset(),
    _J.FAILED: frozenset({_J.QUEUED}),
    _J.CANCELLED: frozenset(),
    _J.EXPIRED: frozenset(),
}

CHUNK_TRANSITIONS: dict[ChunkState, frozenset[ChunkState]] = {
    _C.QUEUED: frozenset({_C.RUNNING, _C.HELD, _C.DONE}),
    _C.RUNNING: frozenset({_C.QUEUED, _C.HELD, _C.DONE}),
    _C.HELD: frozenset({_C.QUEUED, _C.DONE}),
    _C.DONE: frozenset(),
}

#: Batches that will not change by themselves any more.
BATCH_TERMINAL = frozenset({_B.COMPLETED, _B.FAILED, _B.CANCELLED, _B.EXPIRED})
#: Batches whose jobs may run.
BATCH_ACTIVE = frozenset({_B.QUEUED, _B.IN_PROGRESS})
JOB_TERMINAL = frozenset({_J.SUCCEEDED, _J.FAILED, _J.CANCELLED, _J.EXPIRED})


def as_state(text: str) -> BatchState:
    """The batch state of this name. Raises UsageError, naming all of them."""
    try:
        return BatchState(text)
    except ValueError:
        raise UsageError(
            f"'{text[:40]}' is not a batch's state: it is one of {', '.join(BatchState)}"
        ) from None


def sources(target: BatchState) -> frozenset[BatchState]:
    """The states from which a batch may go to `target`."""
    return frozenset(state for state, nexts in BATCH_TRANSITIONS.items() if target in nexts)


def require(batch: str, state: BatchState, target: BatchState) -> None:
    """Raise ConflictError unless a batch may go from `state` to `target`."""
    if target not in BATCH_TRANSITIONS[state]:
        raise ConflictError(f"batch {batch} is {state}: it can't become {target}")
