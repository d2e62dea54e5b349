"""Write what a worker made: job states, results and the batch's counters, in one transaction.

Exactly once, by two guards: the chunk must still be under our lease, and the job must still be
open. A lost race is a count, not an error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, case, select, update

from db.clock import db_now
from db.queries import attempts, bulk
from db.queries.bulk import EndedAttempt, Result
from db.sample_counts import counts_of
from db.schema import batches, chunks
from db.states import BatchState, ChunkState, JobState


class SampleRow(NamedTuple):
    """One sample, score or embedding, ready to be stored."""

    text: str | None
    finish_reason: str | None
    completion_tokens: int
    logprobs: str | None = None
    logprob: float | None = None
    embedding: bytes | None = None
    reasoning: str | None = None
    #: JSON.
    tool_calls: str | None = None


class Try(NamedTuple):
    """An answer that was not good enough, or that there was none when it was asked for again."""

    #: Unix seconds of the database's clock.
    started_at: float | None
    ended_at: float
    error_code: str
    error_message: str
    #: JSON: what it was drawn with.
    params: str
    #: JSON list; None: there was no answer.
    samples: str | None


class JobOutcome(NamedTuple):
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
    #: What came before the answer that is stored, oldest first; where the job fails for its last
    #: one, that one too.
    tries: tuple[Try, ...] = ()

    @property
    def completion_tokens(self) -> int:
        return sum(sample.completion_tokens for sample in self.samples)


def record(connection: Connection, outcomes: Sequence[JobOutcome], *, worker: int) -> int:
    """Write outcomes of any chunks; how many were written (the rest had lost their place).

    Locks in the order of everyone: chunks, jobs, then batches.
    """
    leased = _still_leased(connection, outcomes)
    ours = _first_of_each([one for one in outcomes if one.chunk in leased])
    ended = bulk.end_attempts(connection, [_attempt(one) for one in ours], worker=worker)
    written = [one for one in ours if (one.batch, one.line) in ended]
    if not written:
        return 0
    bulk.insert_results(connection, [row for one in written for row in _results(one)])
    attempts.add(connection, [row for one in written for row in _history(one, worker)])
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


def _first_of_each(outcomes: Sequence[JobOutcome]) -> list[JobOutcome]:
    """A job that was retried while its first chunk was out may come twice: the first one wins."""
    firsts: dict[tuple[int, int], JobOutcome] = {}
    for outcome in outcomes:
        firsts.setdefault((outcome.batch, outcome.line), outcome)
    return list(firsts.values())


def _attempt(outcome: JobOutcome) -> EndedAttempt:
    return EndedAttempt(
        outcome.batch,
        outcome.line,
        outcome.state,
        outcome.started_at,
        outcome.prompt_tokens,
        outcome.completion_tokens,
        outcome.error_code,
        outcome.error_message,
    )


def _history(outcome: JobOutcome, worker: int) -> Iterator[dict[str, Any]]:
    job = {"batch_id": outcome.batch, "line": outcome.line, "worker_id": worker}
    for one in outcome.tries:
        yield {**job, **one._asdict()}
    if outcome.error_code and outcome.error_code != _last_error(outcome):
        yield {
            **job,
            "started_at": outcome.started_at,
            "ended_at": None,
            "error_code": outcome.error_code,
            "error_message": outcome.error_message or "",
            "params": None,
            "samples": None,
        }


def _last_error(outcome: JobOutcome) -> str | None:
    """A job that fails for its last try has the try's error."""
    return outcome.tries[-1].error_code if outcome.tries else None


def _results(outcome: JobOutcome) -> Iterator[Result]:
    for index, sample in enumerate(outcome.samples):
        yield Result(outcome.batch, outcome.line, index, *sample)


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
        **_sample_sums(outcomes),
    }


def _sample_sums(outcomes: Sequence[JobOutcome]) -> dict[str, Any]:
    counts = counts_of(sample for outcome in outcomes for sample in outcome.samples)
    sums: dict[str, Any] = {
        name: batches.c[name] + getattr(counts, name)
        for name in ("samples", "truncated", "with_reasoning", "with_tool_calls", "with_logprobs")
        if getattr(counts, name)
    }
    if counts.shortest_cut is not None and counts.longest_cut is not None:
        shortest, longest = batches.c.shortest_cut, batches.c.longest_cut
        few, many = counts.shortest_cut, counts.longest_cut
        sums["shortest_cut"] = _replaced_if(shortest, shortest > few, few)
        sums["longest_cut"] = _replaced_if(longest, longest < many, many)
    return sums


def _replaced_if(column: Column[Any], condition: ColumnElement[bool], value: int) -> Any:
    return case((column.is_(None) | condition, value), else_=column)
