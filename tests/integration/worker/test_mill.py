"""The mill on a real database with the echo engine: claim, generate, persist."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from sqlalchemy import update

from db.database import Database
from db.modes import EmbedParams, Mode
from db.queries import chunks, recovery, steering, workers
from db.queries.results import stream
from db.schema import chunks as chunk_table
from db.settings import Settings
from db.states import BatchState, JobState
from tests.support.crowd import at_once
from tests.support.invariants import Snapshot
from tests.support.mills import FaultyDatabase, Slot, a_mill, due, echo, job_now, messages
from tests.support.processes import eventually
from tests.support.stored import a_batch, a_claim, a_worker, batch_now, chunk_states, claims
from worker.engine.echo import EchoEngine
from worker.engine.echo_words import measured
from worker.engine.protocol import (
    Completed,
    Embedded,
    EmbedRequest,
    EngineConfig,
    OnDone,
    Outcome,
    Request,
)
from worker.heartbeat import Heartbeat
from worker.mill import Mill
from worker.run import Ending


@pytest.fixture
def faulty(database_url: str) -> Iterator[FaultyDatabase]:
    made = FaultyDatabase(database_url)
    yield made
    made.away.clear()
    made.close()


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.flusher._RETRY", 0.05)
    monkeypatch.setattr("worker.mill._RETRY", 0.05)


def test_given_two_mills_and_every_message_twice_when_run_then_each_job_is_done_once(
    faulty: FaultyDatabase,
) -> None:
    made = [a_batch(faulty, 60, chunk_size=4, params={"temperature": 0}) for _ in range(2)]
    ring = messages(faulty)

    def slot(mill: Mill, start: int) -> Callable[[], list[Ending]]:
        return lambda: [mill.work_on(chunk) for chunk in ring[start:] + ring[:start]]

    with (
        a_mill(faulty, echo(latency="0.002", capacity="8")) as one,
        a_mill(faulty, echo(latency="0.001", capacity="8")) as two,
    ):
        endings = at_once(slot(mill, 7 * n) for n, mill in enumerate([one, two] * 3))
        written = [mill.flusher.jobs_written for mill in (one, two)]
    assert sum(written) == 120
    assert min(written) > 0
    ended = [ending for part in endings for ending in part]
    assert ended.count(Ending.WRITTEN) == len(ring)
    assert set(ended) == {Ending.WRITTEN, Ending.GONE}
    end = Snapshot.of(faulty)
    end.check()
    assert len(end.results) == 120
    assert {row.text for row in end.results} == {f"prompt {line}" for line in range(1, 61)}
    assert [batch_now(faulty, batch).state for batch in made] == [BatchState.COMPLETED] * 2


def test_given_no_message_when_an_idle_mill_looks_then_it_finds_the_work(
    database: Database,
) -> None:
    batch = a_batch(database, 8, chunk_size=4)
    with a_mill(database) as mill:
        assert [mill.work_on_next() for _ in range(3)] == [True, True, False]
        eventually(lambda: batch_now(database, batch).finished, what="the batch is complete")
    assert chunk_states(database, batch.key) == ["done", "done"]


def test_given_a_mill_for_one_batch_when_anything_rings_then_it_works_on_that_batch_alone(
    database: Database,
) -> None:
    older, mine = a_batch(database, 8, chunk_size=4, priority=9), a_batch(database, 8, chunk_size=4)
    ring = messages(database)
    with a_mill(database, only=mine.key) as mill:
        assert mill.work_on(ring[0]) is Ending.WRITTEN  # a chunk of the older one rang
        assert mill.work_on_next()
        eventually(lambda: batch_now(database, mine).finished, what="the batch is complete")
        assert mill.work_on(ring[1]) is Ending.GONE
    assert chunk_states(database, older.key) == ["queued", "queued"]


def test_given_a_chunk_without_open_jobs_when_worked_on_then_it_is_closed(
    database: Database,
) -> None:
    batch = a_batch(database, 4)
    (chunk,) = messages(database)
    with database.write() as connection:
        steering.begin_cancel(connection, batch.id)
        steering.finish_cancel(connection, batch.key)
        connection.execute(update(chunk_table).values(state="queued"))
    with a_mill(database) as mill:
        assert Slot(mill, chunk).ended() is Ending.WRITTEN
    assert chunk_states(database, batch.key) == ["done"]


def test_given_a_full_engine_when_another_chunk_rings_then_it_stays_for_an_idle_worker(
    database: Database,
) -> None:
    batch = a_batch(database, 2, chunk_size=1, prompts={1: "[[hang]]"})
    first, second = messages(database)
    with a_mill(database, echo(faults="on", capacity="1")) as full:
        Slot(full, first)
        eventually(lambda: not full.has_room, what="the engine is full")
        waiting = Slot(full, second)
        with a_mill(database) as idle:
            assert Slot(idle, second).ended() is Ending.WRITTEN
        assert waiting.working
        assert full.drain(0) == 1
        assert waiting.ended() is Ending.RELEASED
    assert batch_now(database, batch).succeeded == 1


def test_given_a_poison_prompt_when_run_then_it_fails_alone(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    batch = a_batch(database, 4, prompts={2: "secret words [[fail]]"})
    with caplog.at_level(logging.INFO), a_mill(database, echo(faults="on")) as mill:
        assert mill.work_on(messages(database)[0]) is Ending.WRITTEN
    now = batch_now(database, batch)
    assert (now.state, now.succeeded, now.failed) == (BatchState.COMPLETED, 3, 1)
    broken = job_now(database, batch, 2)
    assert (broken.error_code, broken.attempts) == ("echo_fault", 1)
    assert f"job {batch.id}-2: " in caplog.text
    assert "secret words" not in caplog.text


def test_given_an_error_that_may_pass_when_run_then_it_is_tried_again_until_attempts_are_spent(
    database: Database,
) -> None:
    batch = a_batch(database, 3, prompts={2: "[[retry]]"})
    (chunk,) = messages(database)
    with a_mill(database, echo(faults="on"), max_attempts=2) as mill:
        assert mill.work_on(chunk) is Ending.WRITTEN
        waiting = job_now(database, batch, 2)
        assert (waiting.state, waiting.attempts) == (JobState.QUEUED, 1)
        assert batch_now(database, batch).succeeded == 2
        # It waits before its last attempt, and then rings alone.
        assert mill.work_on(chunk) is Ending.GONE
        assert messages(database) == []
        due(database)
        (alone,) = messages(database)
        assert mill.work_on(alone) is Ending.WRITTEN
    parked = job_now(database, batch, 2)
    assert (parked.state, parked.attempts, parked.error_code) == (JobState.FAILED, 2, "echo_fault")
    now = batch_now(database, batch)
    assert (now.state, now.succeeded, now.failed) == (BatchState.COMPLETED, 2, 1)
    Snapshot.of(database).check()


class Broken(EchoEngine):
    """It breaks its promise: `submit` raises."""

    def submit(self, request: Request, on_done: OnDone) -> None:
        if request.prompt == "break":
            raise ZeroDivisionError("what a surprise")
        super().submit(request, on_done)


def test_given_an_engine_that_raises_when_run_then_only_that_job_fails(
    database: Database,
) -> None:
    batch = a_batch(database, 3, prompts={2: "break"})
    with a_mill(database, Broken(EngineConfig("m")), max_attempts=1) as mill:
        assert Slot(mill, messages(database)[0]).ended() is Ending.WRITTEN
    broken = job_now(database, batch, 2)
    assert (broken.state, broken.error_code) == (JobState.FAILED, "internal_error")
    assert broken.error_message == "ZeroDivisionError: what a surprise"
    assert batch_now(database, batch).succeeded == 2


class OnlyGenerates:
    """An engine without `measure`."""

    def __init__(self) -> None:
        self._echo = EchoEngine(EngineConfig("m"))
        self.start, self.submit, self.cancel = (
            self._echo.start,
            self._echo.submit,
            self._echo.cancel,
        )
        self.stats, self.close = self._echo.stats, self._echo.close


@pytest.mark.parametrize("mode", [Mode.SCORE, Mode.EMBED])
def test_given_an_engine_that_only_generates_when_a_text_is_measured_then_it_refuses_by_name(
    database: Database, mode: Mode
) -> None:
    other, plain = a_batch(database, 2, mode=mode), a_batch(database, 2)
    with a_mill(database, OnlyGenerates()) as mill:
        for chunk in messages(database):
            assert Slot(mill, chunk).ended() is Ending.WRITTEN
    refused = job_now(database, other, 1)
    assert (refused.state, refused.error_code) == (JobState.FAILED, "unsupported_mode")
    assert refused.attempts == 1
    assert f"can't {mode}" in str(refused.error_message)
    assert batch_now(database, plain).succeeded == 2


def test_given_scores_and_embeddings_when_run_then_they_are_stored_with_their_numbers(
    database: Database,
) -> None:
    prompts = {1: "one two three", 2: "one two"}
    scored = a_batch(database, 2, prompts=prompts, mode=Mode.SCORE)
    params = EmbedParams(pooling="last", precision="float16")
    embedded = a_batch(database, 2, prompts=prompts, mode=Mode.EMBED, params=params.model_dump())
    with a_mill(database) as mill:
        for chunk in messages(database):
            assert Slot(mill, chunk).ended() is Ending.WRITTEN
    first, second = list(stream(database, scored))
    assert (first.logprob, first.completion_tokens, first.prompt_tokens) == (-8.0, 2, 1)
    assert first.perplexity == pytest.approx(math.exp(4))
    assert (first.text, first.finish_reason, first.embedding) == (None, None, None)
    assert (second.logprob, second.completion_tokens) == (-3.0, 1)
    vectors = list(stream(database, embedded))
    for text, one in zip(prompts.values(), vectors, strict=True):
        request = EmbedRequest("a", params, text)
        answer = measured(request)
        assert isinstance(answer, Embedded)
        assert one.embedding == answer.vector  # multiples of 1/128: exact in float16
        assert (one.text, one.logprob, one.completion_tokens) == (None, None, 0)
    now = batch_now(database, embedded)
    assert (now.completion_tokens, now.prompt_tokens, now.work_tokens) == (0, 5, 5)
    job = job_now(database, scored, 1)
    assert job.samples[0]["logprob"] == -8.0
    Snapshot.of(database).check()


def heartbeat(database: Database, mill: Mill) -> Heartbeat:
    return Heartbeat(Settings(), database, mill._engine, mill, worker=mill._worker)


def test_given_a_paused_batch_when_the_heart_beats_then_the_worker_drops_it_and_writes_nothing(
    database: Database,
) -> None:
    batch = a_batch(database, 3, prompts=dict.fromkeys((1, 2, 3), "[[hang]]"))
    with a_mill(database, echo(faults="on")) as mill:
        slot = Slot(mill, messages(database)[0])
        eventually(lambda: mill._engine.stats().in_flight == 3, what="the engine works")
        beat = heartbeat(database, mill)
        assert beat.beat() == Settings().heartbeat_interval
        assert slot.working
        with database.write() as connection:
            steering.pause(connection, batch.id)
        beat.beat()
        assert slot.ended() is Ending.LOST
        assert mill._engine.stats().in_flight == 0
        assert mill.leases() == {}
    assert [row.attempts for row in Snapshot.of(database).jobs] == [0, 0, 0]
    assert chunk_states(database, batch.key) == ["held"]


def test_given_a_lease_that_another_worker_took_when_results_come_then_they_are_not_written(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    batch = a_batch(database, 2)
    (chunk,) = messages(database)
    with (
        caplog.at_level(logging.INFO),
        a_mill(database, echo(latency="0.3")) as mill,
    ):
        slot = Slot(mill, chunk)
        token = eventually(lambda: mill.leases().get(chunk), what="the chunk is claimed")
        with database.write() as connection:
            chunks.release(connection, chunk, token)
        other = a_claim(database, a_worker(database))
        assert other is not None
        slot.ended()
        assert mill.flusher.jobs_written == 0
    assert "late_results" in {getattr(one, "action", "") for one in caplog.records}
    assert batch_now(database, batch).done == 0
    assert chunk_states(database, batch.key) == ["running"]


def test_given_a_working_mill_when_the_heart_beats_then_its_numbers_and_leases_are_fresh(
    database: Database,
) -> None:
    a_batch(database, 8, chunk_size=4, prompts={5: "[[hang]]"}, params={"temperature": 0})
    first, second = messages(database)
    with a_mill(database, echo(faults="on")) as mill:
        mill.work_on(first)
        Slot(mill, second)
        eventually(lambda: mill._engine.stats().in_flight == 1, what="the engine hangs")
        eventually(lambda: mill.flusher.jobs_written == 7, what="the rest is written")
        with database.write() as connection:
            connection.execute(update(chunk_table).values(lease_expires_at=1.0))
        heartbeat(database, mill).beat()
        with database.read() as connection:
            assert recovery.expired_leases(connection, 10) == []
            (shown,) = workers.alive(connection, within=60)
    assert (shown.jobs, shown.in_flight) == (7, 1)
    assert (shown.prompt_tokens, shown.completion_tokens) == (14, 14)


def test_heartbeat_of_a_worker_that_shuts_down_says_by_when_it_ends(database: Database) -> None:
    with a_mill(database, echo()) as mill:
        beat = heartbeat(database, mill)
        for stopping in (False, True):
            if stopping:
                mill.interrupt(now=False)
            beat.beat()
            with database.read() as connection:
                (shown,) = workers.alive(connection, within=60)
            assert (shown.stops_at is not None) == stopping
    assert shown.stops_at == pytest.approx(shown.heartbeat_at + Settings().grace, abs=1)


def test_given_a_result_that_the_database_refuses_when_flushed_then_its_job_fails_alone(
    postgres_url: str,
) -> None:
    database = Database(Settings(database_url=postgres_url))
    batch = a_batch(database, 5)
    worker = a_worker(database)
    held = claims(database, worker)
    assert held
    with database.write() as connection:
        for claim in held:
            chunks.release(connection, claim.chunk, claim.token)

    class Wordy(EchoEngine):
        """Its finish reason is longer than the column."""

        def submit(self, request: Request, on_done: OnDone) -> None:
            def longer(request_id: str, outcome: Outcome) -> None:
                assert isinstance(outcome, Completed)
                if request.prompt == "prompt 3":
                    sample = replace(outcome.samples[0], finish_reason="x" * 99)
                    outcome = replace(outcome, samples=(sample,))
                on_done(request_id, outcome)

            super().submit(request, longer)

    with a_mill(database, Wordy(EngineConfig("m"))) as mill:
        while mill.work_on_next():
            pass
        eventually(lambda: batch_now(database, batch).finished, what="the batch is complete")
    now = batch_now(database, batch)
    assert (now.succeeded, now.failed) == (4, 1)
    assert job_now(database, batch, 3).error_code == "unstorable_result"
    Snapshot.of(database).check()
    database.close()
