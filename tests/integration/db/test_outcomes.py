"""What a worker made is written exactly once, by whoever holds the lease."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from db.database import Database
from db.queries import chunks, failures, jobs, outcomes, steering
from db.queries.audit import audit
from db.queries.outcomes import JobOutcome, SampleRow, Try
from db.queries.results import stream
from db.records import Batch, Claim, FailureGroup
from db.sample_counts import SampleCounts
from db.states import BatchState, JobState
from tests.support.crowd import at_once
from tests.support.invariants import Snapshot
from tests.support.stored import (
    a_batch,
    a_claim,
    a_worker,
    batch_now,
    claims,
    failed,
    succeeded,
)


@pytest.fixture
def worker(database: Database) -> int:
    return a_worker(database)


@pytest.fixture
def batch(database: Database) -> Batch:
    """Eight jobs in two chunks."""
    return a_batch(database, 8, chunk_size=4)


@pytest.fixture
def claim(database: Database, batch: Batch, worker: int) -> Claim:
    found = a_claim(database, worker)
    assert found is not None
    return found


def record(database: Database, made: list[JobOutcome], worker: int) -> int:
    with database.write() as connection:
        written = outcomes.record(connection, made, worker=worker)
        outcomes.settle(connection, [one.batch for one in made])
    return written


def test_stored_samples_are_counted_by_what_they_have(
    database: Database, batch: Batch, claim: Claim, worker: int
) -> None:
    def with_samples(line: int, *samples: SampleRow) -> JobOutcome:
        return succeeded(claim, line)._replace(samples=samples)

    first = [
        with_samples(1, SampleRow("a", "length", 9), SampleRow("b", "stop", 3, logprobs="[]")),
        failed(claim, 2),
        failed(claim, 3, again=True),
    ]
    second = [
        with_samples(3, SampleRow("c", "length", 4), SampleRow("d", "length", 12)),
        with_samples(4, SampleRow("", "tool_calls", 5, reasoning="Hm", tool_calls="[]")),
    ]
    record(database, first, worker)
    assert batch_now(database, batch).sample_counts == SampleCounts(
        samples=2, truncated=1, shortest_cut=9, longest_cut=9, with_logprobs=1
    )
    record(database, second, worker)
    assert batch_now(database, batch).sample_counts == SampleCounts(
        samples=5,
        truncated=3,
        shortest_cut=4,
        longest_cut=12,
        with_reasoning=1,
        with_tool_calls=1,
        with_logprobs=1,
    )
    with database.read() as connection:
        assert "sample counters" not in {one.name for one in audit(connection)}


def test_failures_are_grouped_by_code_with_their_first_job(
    database: Database, batch: Batch, claim: Claim, worker: int
) -> None:
    other = failed(claim, 2)._replace(error_code="other", error_message="it is odd")
    record(database, [failed(claim, 4), failed(claim, 1), other, succeeded(claim, 3)], worker)
    now = batch_now(database, batch)
    with database.read() as connection:
        assert failures.by_code(connection, now) == [
            FailureGroup("broken", 2, f"{batch.id}-1", "it broke"),
            FailureGroup("other", 1, f"{batch.id}-2", "it is odd"),
        ]
        assert failures.by_code(connection, now, limit=2) == [
            FailureGroup("broken", 1, f"{batch.id}-1", "it broke"),
            FailureGroup("other", 1, f"{batch.id}-2", "it is odd"),
        ]
        assert failures.by_code(connection, replace(now, failed=0)) == []


def test_given_outcomes_when_recorded_then_jobs_results_and_counters_agree(
    database: Database, batch: Batch, claim: Claim, worker: int
) -> None:
    made = [succeeded(claim, 1, "a", "b"), succeeded(claim, 2), failed(claim, 3)]
    assert record(database, made, worker) == 3
    now = batch_now(database, batch)
    assert (now.succeeded, now.failed, now.done) == (2, 1, 3)
    assert (now.prompt_tokens, now.completion_tokens) == (6, 6)
    Snapshot.of(database).check()
    with database.read() as connection:
        job = jobs.get_job(connection, batch.id, 1)
        broken = jobs.get_job(connection, batch.id, 3)
    assert (job.state, job.attempts, job.prompt_tokens) == (JobState.SUCCEEDED, 1, 3)
    assert (job.started_at, job.finished_at is not None) == (2.0, True)
    assert job.samples == [
        {
            "sample": index,
            "text": text,
            "finish_reason": "stop",
            "completion_tokens": 2,
            "logprobs": None,
        }
        for index, text in enumerate("ab")
    ]
    assert (broken.state, broken.error_code, broken.error_message) == (
        JobState.FAILED,
        "broken",
        "it broke",
    )


def test_given_awkward_text_when_recorded_then_it_comes_back_as_it_was(
    database: Database, batch: Batch, claim: Claim, worker: int
) -> None:
    text = "tab\t new\nline \\N 'quote\" 日本語 🎉 %s :name " + "x" * 100_000
    sample = SampleRow(text, "length", 3, logprobs='[{"token": "x", "logprob": -0.5}]')
    record(database, [succeeded(claim, 1)._replace(samples=(sample,))], worker)
    with database.read() as connection:
        (stored,) = jobs.get_job(connection, batch.id, 1).samples
    assert stored["text"] == text
    assert stored["logprobs"] == [{"token": "x", "logprob": -0.5}]


def test_given_thinking_and_calls_when_recorded_then_they_come_back_where_there_are_any(
    database: Database, batch: Batch, claim: Claim, worker: int
) -> None:
    calls = '[{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]'
    whole = SampleRow("", "tool_calls", 3, reasoning="Hm, 日本\n", tool_calls=calls)
    plain = SampleRow("text", "stop", 3)
    record(database, [succeeded(claim, 1)._replace(samples=(whole, plain))], worker)
    with database.read() as connection:
        first, second = jobs.get_job(connection, batch.id, 1).samples
    assert (first["text"], first["finish_reason"]) == ("", "tool_calls")
    assert first["reasoning"] == "Hm, 日本\n"
    assert first["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert not {"reasoning", "tool_calls"} & set(second)
    streamed = list(stream(database, batch))
    assert (streamed[0].reasoning, streamed[0].tool_calls) == ("Hm, 日本\n", calls)
    assert (streamed[1].reasoning, streamed[1].tool_calls) == (None, None)


def test_given_a_stale_token_when_recorded_then_nothing_is_written(
    database: Database, batch: Batch, claim: Claim, worker: int
) -> None:
    with database.write() as connection:
        chunks.release(connection, claim.chunk, claim.token)
    assert record(database, [succeeded(claim, 1)], worker) == 0
    other = a_worker(database)
    new = a_claim(database, other)
    assert new is not None
    assert new.chunk == claim.chunk
    assert record(database, [succeeded(claim, 1, "stale"), failed(claim, 2)], worker) == 0
    assert record(database, [succeeded(new, 1, "fresh")], other) == 1
    with database.read() as connection:
        assert jobs.get_job(connection, batch.id, 1).samples[0]["text"] == "fresh"
        assert jobs.get_job(connection, batch.id, 2).attempts == 0
    assert batch_now(database, batch).done == 1


def test_given_outcomes_of_a_lost_and_a_held_chunk_when_recorded_then_only_the_held_ones_are(
    database: Database, batch: Batch, claim: Claim, worker: int
) -> None:
    held = a_claim(database, worker)
    assert held is not None
    with database.write() as connection:
        chunks.release(connection, claim.chunk, claim.token)
    assert record(database, [succeeded(claim, 1), succeeded(held, 5)], worker) == 1
    assert Snapshot.of(database).states()["job", (batch.key, 5)] == "succeeded"
    Snapshot.of(database).check()


@pytest.mark.parametrize("apart", [True, False], ids=["one by one", "in one call"])
def test_given_the_same_outcome_twice_when_recorded_then_it_is_written_once(
    database: Database, batch: Batch, claim: Claim, worker: int, apart: bool
) -> None:
    twins = [succeeded(claim, 1, "first"), succeeded(claim, 1, "second"), failed(claim, 1)]
    if apart:
        assert [record(database, [one], worker) for one in twins] == [1, 0, 0]
    else:
        assert record(database, twins, worker) == 1
    assert batch_now(database, batch).succeeded == 1
    with database.read() as connection:
        job = jobs.get_job(connection, batch.id, 1)
    assert (job.attempts, [one["text"] for one in job.samples]) == (1, ["first"])
    Snapshot.of(database).check()


def test_given_a_cancelled_batch_when_recorded_then_its_jobs_stay_cancelled(
    database: Database, batch: Batch, claim: Claim, worker: int
) -> None:
    record(database, [succeeded(claim, 1)], worker)
    with database.write() as connection:
        steering.begin_cancel(connection, batch.id)
    # Between the two halves of a cancel a result still counts.
    assert record(database, [succeeded(claim, 2)], worker) == 1
    with database.write() as connection:
        steering.finish_cancel(connection, batch.key)
    assert record(database, [succeeded(claim, 3)], worker) == 0
    now = batch_now(database, batch)
    assert (now.state, now.succeeded, now.cancelled) == (BatchState.CANCELLED, 2, 6)
    Snapshot.of(database).check()


def test_given_a_transaction_that_dies_midway_when_looked_at_then_nothing_of_it_is_there(
    database: Database, batch: Batch, claim: Claim, worker: int
) -> None:
    before = Snapshot.of(database)

    def killed_midway() -> None:
        with database.write() as connection:
            assert outcomes.record(connection, [succeeded(claim, 1)], worker=worker) == 1
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        killed_midway()
    after = Snapshot.of(database)
    assert after.batches == before.batches
    assert (after.jobs, after.results) == (before.jobs, [])
    assert record(database, [succeeded(claim, 1)], worker) == 1


def test_given_a_failure_that_may_pass_when_recorded_then_the_job_waits_with_an_attempt_spent(
    database: Database, batch: Batch, claim: Claim, worker: int
) -> None:
    assert record(database, [failed(claim, 1, again=True), succeeded(claim, 2)], worker) == 2
    with database.write() as connection:
        job = jobs.get_job(connection, batch.id, 1)
        chunks.release(connection, claim.chunk, claim.token)
    assert (job.attempts, job.error_code, job.finished_at) == (1, "broken", None)
    now = batch_now(database, batch)
    assert (now.failed, now.succeeded) == (0, 1)
    again = a_claim(database, worker)
    assert again is not None
    assert [(one.line, one.attempts) for one in again.jobs] == [(1, 1), (3, 0), (4, 0)]
    record(database, [succeeded(again, 1)], worker)
    with database.read() as connection:
        job = jobs.get_job(connection, batch.id, 1)
    assert (job.attempts, job.error_code, job.error_message) == (2, None, None)
    Snapshot.of(database).check()


def test_given_the_last_outcome_when_settled_then_and_only_then_the_batch_is_complete(
    database: Database, batch: Batch, claim: Claim, worker: int
) -> None:
    second = a_claim(database, worker)
    assert second is not None
    lines = [(one, job.line) for one in (claim, second) for job in one.jobs]
    for one, line in lines[:-1]:
        record(database, [succeeded(one, line)], worker)
        now = batch_now(database, batch)
        assert (now.state, now.finished_at) == (BatchState.IN_PROGRESS, None)
    record(database, [failed(*lines[-1])], worker)
    now = batch_now(database, batch)
    assert (now.state, now.succeeded, now.failed) == (BatchState.COMPLETED, 7, 1)
    assert now.finished_at is not None


def test_given_many_batches_when_flushed_at_once_from_many_threads_then_all_complete(
    database: Database, worker: int
) -> None:
    made = [a_batch(database, 12, chunk_size=2) for _ in range(3)]
    held = claims(database, worker)

    def flush(number: int) -> int:
        mine = held[number::4]
        return sum(
            record(database, [succeeded(one, job.line) for one in mine for job in one.jobs][i:j], 1)
            for i, j in ((0, 3), (2, 6), (5, 99))
        )

    written = at_once([lambda n=n: flush(n) for n in range(4)])  # type: ignore[misc]
    assert sum(written) == 36
    assert [batch_now(database, one).state for one in made] == [BatchState.COMPLETED] * 3
    Snapshot.of(database).check()


def test_given_nothing_when_recorded_then_nothing_happens(database: Database, worker: int) -> None:
    assert record(database, [], worker) == 0


def a_try(code: str, text: str | None, *, ended_at: float = 5.0) -> Try:
    samples = None if text is None else json.dumps([{"text": text, "finish_reason": "length"}])
    return Try(4.0, ended_at, code, "it would not do", '{"seed": 9223372036854775807}', samples)


def test_given_tries_when_recorded_then_they_are_history_with_their_texts_and_no_attempts(
    database: Database, batch: Batch, claim: Claim, worker: int
) -> None:
    tried = (a_try("truncated", "é"), a_try("engine_error", None, ended_at=6.0))
    broken = (a_try("truncated", "a"), a_try("broken", "b"))
    made = [
        succeeded(claim, 1)._replace(tries=tried),
        failed(claim, 2)._replace(tries=broken),
        failed(claim, 3, again=True)._replace(tries=(a_try("truncated", "c"),)),
    ]
    assert record(database, made, worker) == 3
    # Somebody else's by now, or written already: then their tries are not, either.
    assert record(database, [made[0], succeeded(claim, 4, token="other")], worker) == 0
    with database.read() as connection:
        one, two, three, four = [jobs.get_job(connection, batch.id, n) for n in (1, 2, 3, 4)]
    assert [(a.error_code, a.started_at, a.ended_at) for a in one.history] == [
        ("truncated", 4.0, 5.0), ("engine_error", 4.0, 6.0),
    ]  # fmt: skip
    assert one.history[0].params == {"seed": 2**63 - 1}
    assert one.history[0].samples == [{"text": "é", "finish_reason": "length"}]
    assert (one.history[1].samples, one.attempts) == (None, 1)
    # The last try is what failed the job: it stands there once.
    assert [a.error_code for a in two.history] == ["truncated", "broken"]
    assert [(a.error_code, a.params is None) for a in three.history] == [
        ("truncated", False), ("broken", True),
    ]  # fmt: skip
    assert three.history[1].ended_at > 1e9
    assert (four.history, {j.attempts for j in (one, two, three)}) == ([], {1})
    Snapshot.of(database).check()
