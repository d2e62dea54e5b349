"""Write what a worker made: job states, results and the batch's counters, in one transaction.

Exactly once, by two guards: the chunk must still be under our lease, and the job must still be
open. A lost race is a count, not an error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, String, bindparam, case, insert, literal, select, update

from db.clock import db_now
from db.queries import attempts
from db.schema import batches, chunks, jobs, results
from db.states import BatchState, ChunkState, JobState


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One sample, ready to be stored."""

    text: str
    finish_reason: str
    completion_tokens: int
    logprobs: str | None = None


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How one attempt of a job ended: succeeded, failed, or queued again with its error."""

    chunk: int
    token: str
    batch: int
    line: int
    state: JobState
    started_at: float | None = None
    prompt_tokens: int = 0
    samples: tuple[SampleRow, ...] = ()
    error_code: str | None = None
    error_message: str | None = None

    @property
    def completion_tokens(self) -> int:
        return sum(sample.completion_tokens for sample in self.samples)


def record(connection: Connection, outcomes: Sequence[JobOutcome], *, worker: int) -> int:
    """Write outcomes of any chunks; how many were written (the rest had lost their place).

    Locks in the order of everyone: chunks, jobs, then batches.
    """
    leased = _still_leased(connection, outcomes)
    written: list[JobOutcome] = []
    for batch, ours in sorted(_by_batch(outcomes, leased).items()):
        written += _still_open(connection, batch, ours)
    if not written:
        return 0
    _update_jobs(connection, written, worker)
    _insert_results(connection, written)
    attempts.add(connection, [_failure(one, worker) for one in written if one.error_code])
    _count(connection, written)
    return len(written)


def settle(connection: Connection, batch_keys: Sequence[int]) -> None:
    """Complete the batches of which every job is terminal."""
    done = batches.c.succeeded + batches.c.failed + batches.c.cancelled + batches.c.expired
    running = [BatchState.QUEUED, BatchState.IN_PROGRESS, BatchState.PAUSED]
    for key in sorted(set(batch_keys)):
        connection.execute(
            update(batches)
            .where(batches.c.id == key, batches.c.state.in_(running), done == batches.c.total)
            .values(state=BatchState.COMPLETED, finished_at=db_now())
        )


def _still_leased(connection: Connection, outcomes: Sequence[JobOutcome]) -> set[int]:
    tokens = {outcome.chunk: outcome.token for outcome in outcomes}
    found = connection.execute(
        select(chunks.c.id, chunks.c.lease_token)
        .where(chunks.c.id.in_(tokens), chunks.c.state == ChunkState.RUNNING)
        .order_by(chunks.c.id)
        .with_for_update()
    )
    return {row.id for row in found if row.lease_token == tokens[row.id]}


def _by_batch(outcomes: Sequence[JobOutcome], leased: set[int]) -> dict[int, list[JobOutcome]]:
    grouped: dict[int, list[JobOutcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.chunk in leased:
            grouped[outcome.batch].append(outcome)
    return grouped


def _still_open(
    connection: Connection, batch: int, outcomes: Sequence[JobOutcome]
) -> list[JobOutcome]:
    found = connection.execute(
        select(jobs.c.line)
        .where(
            jobs.c.batch_id == batch,
            jobs.c.line.in_([outcome.line for outcome in outcomes]),
            jobs.c.state == JobState.QUEUED,
        )
        .order_by(jobs.c.line)
        .with_for_update()
    )
    open_lines = set(found.scalars())
    kept: list[JobOutcome] = []
    for outcome in outcomes:
        # A job that was retried while its first chunk was out may come twice: the first one wins.
        if outcome.line in open_lines:
            open_lines.remove(outcome.line)
            kept.append(outcome)
    return kept


def _update_jobs(connection: Connection, written: Sequence[JobOutcome], worker: int) -> None:
    ended = bindparam("b_state", type_=String()) != literal(JobState.QUEUED, String())
    statement = (
        update(jobs)
        .where(jobs.c.batch_id == bindparam("b_batch"), jobs.c.line == bindparam("b_line"))
        .values(
            state=bindparam("b_state"),
            attempts=jobs.c.attempts + 1,
            worker_id=worker,
            started_at=bindparam("b_started"),
            finished_at=case((ended, db_now()), else_=None),
            prompt_tokens=bindparam("b_prompt"),
            completion_tokens=bindparam("b_completion"),
            error_code=bindparam("b_code"),
            error_message=bindparam("b_message"),
        )
    )
    connection.execute(
        statement,
        [
            {
                "b_batch": outcome.batch,
                "b_line": outcome.line,
                "b_state": outcome.state,
                "b_started": outcome.started_at,
                "b_prompt": outcome.prompt_tokens,
                "b_completion": outcome.completion_tokens,
                "b_code": outcome.error_code,
                "b_message": outcome.error_message,
            }
            for outcome in written
        ],
    )


def _failure(outcome: JobOutcome, worker: int) -> dict[str, Any]:
    return {
        "batch_id": outcome.batch,
        "line": outcome.line,
        "worker_id": worker,
        "started_at": outcome.started_at,
        "error_code": outcome.error_code,
        "error_message": outcome.error_message or "",
    }


def _insert_results(connection: Connection, written: Sequence[JobOutcome]) -> None:
    rows = [
        {
            "batch_id": outcome.batch,
            "line": outcome.line,
            "sample": index,
            "text": sample.text,
            "finish_reason": sample.finish_reason,
            "completion_tokens": sample.completion_tokens,
            "logprobs": sample.logprobs,
        }
        for outcome in written
        for index, sample in enumerate(outcome.samples)
    ]
    if rows:
        connection.execute(insert(results), rows)


def _count(connection: Connection, written: Sequence[JobOutcome]) -> None:
    grouped: dict[int, list[JobOutcome]] = defaultdict(list)
    for outcome in written:
        grouped[outcome.batch].append(outcome)
    for key, outcomes in sorted(grouped.items()):
        connection.execute(update(batches).where(batches.c.id == key).values(_sums(outcomes)))


def _sums(outcomes: Sequence[JobOutcome]) -> dict[str, Any]:
    def count(state: JobState) -> int:
        return sum(outcome.state == state for outcome in outcomes)

    return {
        "succeeded": batches.c.succeeded + count(JobState.SUCCEEDED),
        "failed": batches.c.failed + count(JobState.FAILED),
        "prompt_tokens": batches.c.prompt_tokens + sum(o.prompt_tokens for o in outcomes),
        "completion_tokens": batches.c.completion_tokens
        + sum(o.completion_tokens for o in outcomes),
    }
