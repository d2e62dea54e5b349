"""What must hold of the tables after every transaction, whoever wrote last.

A second opinion on small databases, in Python: `db.queries.audit` asks the same in SQL.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import select

from db.database import AnyRow, Database
from db.schema import batches, chunks, jobs, results
from db.states import (
    BATCH_TRANSITIONS,
    CHUNK_TRANSITIONS,
    JOB_TERMINAL,
    JOB_TRANSITIONS,
    BatchState,
    ChunkState,
    JobState,
)

#: Batches of which every job is terminal.
ENDED = (BatchState.COMPLETED, BatchState.CANCELLED, BatchState.EXPIRED)
_TABLES: dict[str, Any] = {
    "batch": BATCH_TRANSITIONS,
    "job": JOB_TRANSITIONS,
    "chunk": CHUNK_TRANSITIONS,
}


@dataclass(frozen=True)
class Snapshot:
    """All rows at one moment; for small databases."""

    batches: dict[int, AnyRow]
    jobs: list[AnyRow]
    chunks: list[AnyRow]
    results: list[AnyRow]

    @classmethod
    def of(cls, database: Database) -> Self:
        with database.read() as connection:
            rows = [
                list(connection.execute(select(one))) for one in (batches, jobs, chunks, results)
            ]
        return cls({row.id: row for row in rows[0]}, rows[1], rows[2], rows[3])

    def check(self) -> None:
        """Assert all that holds of a moment."""
        self._check_counters()
        self._check_ends()
        self._check_results()
        self._check_leases()
        self._check_open_jobs()

    def check_since(self, before: Snapshot) -> None:
        """Assert that what happened since, one step, went along the tables of states."""
        then = before.states()
        for (kind, key), state in self.states().items():
            old = then.get((kind, key))
            assert old is None or state in _next_states(kind, old), (kind, key, old, state)

    def states(self) -> dict[tuple[str, Any], str]:
        return {
            **{("batch", key): row.state for key, row in self.batches.items()},
            **{("job", (row.batch_id, row.line)): row.state for row in self.jobs},
            **{("chunk", row.id): row.state for row in self.chunks},
        }

    def open_jobs(self) -> list[AnyRow]:
        return [job for job in self.jobs if job.state not in JOB_TERMINAL]

    def _check_counters(self) -> None:
        """A batch's row says what a recount of its jobs and samples says."""
        counts = Counter((job.batch_id, job.state) for job in self.jobs)
        tokens = Counter[int]()
        for sample in self.results:
            tokens[sample.batch_id] += sample.completion_tokens
        for key, batch in self.batches.items():
            for state in JOB_TERMINAL:
                assert getattr(batch, state) == counts[key, state], (batch, state)
            assert batch.total == sum(counts[key, state] for state in JobState)
            assert batch.completion_tokens == tokens[key]

    def _check_ends(self) -> None:
        """A batch has ended if, and only if, all its jobs have."""
        still_open = {job.batch_id for job in self.open_jobs()}
        for key, batch in self.batches.items():
            if batch.state != BatchState.CANCELLING:
                assert (key not in still_open) == (batch.state in ENDED), batch
            assert (batch.finished_at is not None) == (batch.state in ENDED), batch

    def _check_results(self) -> None:
        """Results are there for succeeded jobs, for every one, and for no other."""
        found = {(row.batch_id, row.line) for row in self.results}
        done = [job for job in self.jobs if job.state == JobState.SUCCEEDED]
        assert found == {(job.batch_id, job.line) for job in done}
        for job in self.jobs:
            assert (job.finished_at is not None) == (job.state in JOB_TERMINAL), job

    def _check_leases(self) -> None:
        for chunk in self.chunks:
            running = chunk.state == ChunkState.RUNNING
            assert (chunk.lease_token is not None) == running, chunk
            assert (chunk.lease_expires_at is not None) == running, chunk
            if self.batches[chunk.batch_id].state == BatchState.PAUSED:
                assert chunk.state in (ChunkState.HELD, ChunkState.DONE), chunk

    def _check_open_jobs(self) -> None:
        """An open job is in a chunk that waits or runs, or that a resume would let go."""
        covered = defaultdict[tuple[int, int], set[str]](set)
        for chunk in self.chunks:
            every = range(chunk.first_line, chunk.last_line + 1)
            for line in every if chunk.lines is None else chunk.lines:
                covered[chunk.batch_id, line].add(chunk.state)
        for job in self.open_jobs():
            held = self.batches[job.batch_id].state in (BatchState.PAUSED, BatchState.CANCELLING)
            fine = {ChunkState.QUEUED, ChunkState.RUNNING, *([ChunkState.HELD] if held else [])}
            assert covered[job.batch_id, job.line] & fine, job


def _next_states(kind: str, before: str) -> set[str]:
    """What one step may make of a state. A running job is not stored: it looks queued."""
    table = _TABLES[kind]
    nexts = set(table[next(state for state in table if state == before)])
    if kind == "job" and before == JobState.QUEUED:
        nexts |= table[JobState.RUNNING]
    return {str(state) for state in nexts} | {before}
