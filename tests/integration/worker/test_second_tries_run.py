"""Answers that are asked for again: by a real mill, to the end and in the middle."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from db.database import Database
from db.queries import steering
from db.records import Batch, Job
from db.sampling import seed_of, seed_of_try
from db.schema import batches as batch_table
from db.settings import Settings
from db.states import BatchState, JobState
from tests.support.endpoint import EchoEndpoint, Status
from tests.support.invariants import Snapshot
from tests.support.mills import FaultyDatabase, Slot, a_mill, due, echo, job_now, messages
from tests.support.processes import eventually
from tests.support.steering import cancel, retry, steer
from tests.support.stored import MODEL, a_batch, a_worker, batch_now, chunk_states
from worker.engine.echo import EchoEngine
from worker.engine.protocol import Engine, EngineConfig, Failed, OnDone, Request
from worker.engine.registry import create
from worker.heartbeat import Heartbeat
from worker.mill import Mill
from worker.recovery import deadlines
from worker.run import Ending
from worker.watchdog import STALLED, Watchdog

#: Ten tokens: cut at 2, 4 and 8.
LONG = "a b c d e f g h i j"
GROWS = {"max_tokens": 2, "retry_max_tokens": 64, "temperature": 0}


@pytest.fixture
def faulty(database_url: str) -> Iterator[FaultyDatabase]:
    made = FaultyDatabase(database_url)
    yield made
    made.away.clear()
    made.close()


class Second(EchoEngine):
    """It does something of its own with every second try."""

    def __init__(self, then: Callable[[Request], Request | Failed | None]) -> None:
        """`then`: the request in its place, a failure, or None: it never ends."""
        super().__init__(EngineConfig(MODEL, options={"faults": "on"}))
        self._then = then
        self.asked_again = threading.Event()

    def submit(self, request: Request, on_done: OnDone) -> None:
        if "#" in request.id:
            self.asked_again.set()
            found = self._then(request)
            if isinstance(found, Failed):
                on_done(request.id, found)
                return
            request = found or replace(request, prompt=f"{request.prompt} [[hang]]")
        super().submit(request, on_done)


def hangs(_: Request) -> None:
    return None


def tries(job: Job) -> list[tuple[str, Any, list[str]]]:
    """Of its history: code, what it was drawn with, and texts."""
    return [
        (one.error_code, one.params, [sample["text"] for sample in one.samples or ()])
        for one in job.history
    ]


def cut_at(batch: Batch, line: int, *limits: int) -> list[tuple[str, Any, list[str]]]:
    words, seed = LONG.split(), seed_of(batch.id, line)
    return [
        ("truncated", {"seed": seed, "max_tokens": limit}, [" ".join(words[:limit])])
        for limit in limits
    ]


def whole(database: Database, batch: Batch) -> None:
    """The batch is complete, its first job as if nothing had happened to it."""
    job = job_now(database, batch, 1)
    assert [one["text"] for one in job.samples] == [LONG]
    assert tries(job) == cut_at(batch, 1, 2, 4, 8)
    assert batch_now(database, batch).state == BatchState.COMPLETED
    Snapshot.of(database).check()


def test_given_texts_that_are_cut_when_run_then_they_are_asked_for_again_and_each_answer_is_kept(
    database: Database,
) -> None:
    batch = a_batch(database, 3, prompts={1: LONG, 2: "a b", 3: "a b c"}, params=GROWS)
    with a_mill(database, echo(latency="0.01")) as mill:
        assert mill.work_on(messages(database)[0]) is Ending.WRITTEN
        # All of it was generated: 2+4+8+10, 2 and 2+3.
        assert mill._engine.stats().completion_tokens == 31
    whole(database, batch)
    job = job_now(database, batch, 1)
    assert (job.attempts, job.completion_tokens, job.samples[0]["finish_reason"]) == (1, 10, "stop")
    assert job.history[0].error_message == "the text was cut after 2 tokens"
    first = job.history[0].started_at
    assert first is not None
    assert job.started_at == first <= job.history[0].ended_at <= job.history[1].ended_at
    assert job_now(database, batch, 2).history == []
    now = batch_now(database, batch)
    assert (now.succeeded, now.completion_tokens, now.prompt_tokens) == (3, 15, 15)


def test_given_a_bound_when_the_text_is_longer_then_the_last_answer_is_stored_as_cut(
    database: Database,
) -> None:
    batch = a_batch(database, 1, prompts={1: LONG}, params={**GROWS, "retry_max_tokens": 7})
    with a_mill(database) as mill:
        assert mill.work_on(messages(database)[0]) is Ending.WRITTEN
    job = job_now(database, batch, 1)
    assert (job.state, job.samples[0]["finish_reason"]) == (JobState.SUCCEEDED, "length")
    assert job.samples[0]["text"] == "a b c d e f g"
    assert tries(job) == cut_at(batch, 1, 2, 4)
    Snapshot.of(database).check()


def test_given_a_second_try_that_breaks_when_the_text_was_cut_then_it_is_kept_all_the_same(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    batch = a_batch(database, 1, prompts={1: LONG}, params=GROWS)
    broken = Second(lambda _: Failed("engine_error", "it broke", retriable=True))
    with a_mill(database, broken) as mill:
        assert mill.work_on(messages(database)[0]) is Ending.WRITTEN
    job = job_now(database, batch, 1)
    assert (job.state, job.attempts, job.error_code) == (JobState.SUCCEEDED, 1, None)
    assert job.samples[0]["text"] == "a b"
    assert tries(job) == [
        ("engine_error", {"seed": seed_of(batch.id, 1), "max_tokens": 4}, []),
    ]
    assert job.history[0].samples is None
    assert (
        f"job {batch.id}-1 keeps a text that was cut, as asking again failed: it broke"
        in caplog.text
    )
    Snapshot.of(database).check()


def raises(_: Request) -> None:
    raise ZeroDivisionError("what a surprise")


def test_given_an_engine_that_raises_at_a_second_try_when_run_then_the_job_ends_all_the_same(
    database: Database,
) -> None:
    batch = a_batch(database, 2, prompts={1: LONG}, params=GROWS)
    with a_mill(database, Second(raises)) as mill:
        assert mill.work_on(messages(database)[0]) is Ending.WRITTEN
    assert job_now(database, batch, 1).history[0].error_code == "internal_error"
    assert batch_now(database, batch).succeeded == 2


def test_given_a_second_try_when_the_worker_shuts_down_then_the_job_goes_back_as_it_was(
    database: Database,
) -> None:
    batch = a_batch(database, 2, prompts={1: LONG, 2: "a"}, params=GROWS)
    (chunk,) = messages(database)
    engine = Second(hangs)
    with a_mill(database, engine) as mill:
        slot = Slot(mill, chunk)
        assert engine.asked_again.wait(30)
        eventually(lambda: mill.flusher.jobs_written == 1, what="its neighbour is written")
        assert (engine.stats().in_flight, mill.has_room) == (1, True)
        assert mill.drain(0.1) == 1
        assert slot.ended() is Ending.RELEASED
        assert engine.stats().in_flight == 0
    job = job_now(database, batch, 1)
    assert (job.state, job.attempts, job.history) == (JobState.QUEUED, 0, [])
    Snapshot.of(database).check()
    with a_mill(database) as mill:
        assert mill.work_on_next()
        eventually(lambda: batch_now(database, batch).finished, what="the batch is complete")
    whole(database, batch)


def test_given_work_that_can_be_finished_when_drained_then_its_second_tries_are_too(
    database: Database,
) -> None:
    batch = a_batch(database, 1, prompts={1: LONG}, params=GROWS)
    with a_mill(database, echo(latency="0.1")) as mill:
        slot = Slot(mill, messages(database)[0])
        eventually(mill.leases, what="the chunk is claimed")
        assert mill.drain(30) == 0
        assert slot.ended() is Ending.WRITTEN
    whole(database, batch)


def pause(database: Database, batch: Batch) -> None:
    steer(database, steering.pause, batch)


def expire(database: Database, batch: Batch) -> None:
    late = update(batch_table).where(batch_table.c.id == batch.key).values(expires_at=1.0)
    with database.write() as connection:
        connection.execute(late)
    assert deadlines.run(database) == 1


@pytest.mark.parametrize("change", [cancel, pause, expire])
def test_given_a_second_try_when_its_lease_is_lost_then_it_is_dropped_and_nothing_is_written(
    database: Database, change: Callable[[Database, Batch], object]
) -> None:
    batch = a_batch(database, 1, prompts={1: LONG}, params=GROWS)
    engine = Second(hangs)
    with a_mill(database, engine) as mill:
        slot = Slot(mill, messages(database)[0])
        assert engine.asked_again.wait(30)
        change(database, batch)
        Heartbeat(Settings(), database, engine, mill, worker=mill._worker).beat()
        assert slot.ended() is Ending.LOST
        assert engine.stats().in_flight == 0
        assert mill.leases() == {}
    job = job_now(database, batch, 1)
    assert (job.attempts, job.history, job.samples) == (0, [], [])
    Snapshot.of(database).check()


def test_given_a_second_try_when_it_begins_as_the_lease_is_lost_then_it_does_not_run_on(
    database: Database,
) -> None:
    """Between the first answer and the second request there is nothing to cancel."""
    a_batch(database, 1, prompts={1: LONG}, params=GROWS)
    held: list[Mill] = []

    def loses(_: Request) -> None:
        (mill,) = held
        for chunk, token in mill.leases().items():
            mill.lose(chunk, token)

    engine = Second(loses)
    with a_mill(database, engine) as mill:
        held.append(mill)
        assert Slot(mill, messages(database)[0]).ended() is Ending.LOST
        eventually(lambda: engine.stats().in_flight == 0, what="it is dropped")


def test_given_a_second_try_that_hangs_when_the_watchdog_looks_then_it_costs_an_attempt(
    faulty: FaultyDatabase,
) -> None:
    batch = a_batch(faulty, 1, prompts={1: LONG}, params=GROWS)
    engine = Second(hangs)
    left: list[int] = []
    config = Settings(model=MODEL, stall_timeout=1)
    with a_mill(faulty, engine) as mill:
        Slot(mill, messages(faulty)[0])
        assert engine.asked_again.wait(30)
        watchdog = Watchdog(
            config, faulty, engine, mill, worker=a_worker(faulty), leave=left.append
        )
        eventually(lambda: watchdog.look() and left, what="the watchdog has seen enough")
        assert left == [STALLED]
    job = job_now(faulty, batch, 1)
    assert (job.state, job.attempts) == (JobState.QUEUED, 1)
    assert tries(job) == [("engine_stalled", None, [])]
    Snapshot.of(faulty).check()


# --- structures, from an endpoint that knows nothing of them ---------------------------------

#: The echo begins with word (seed % 2): one half of the seeds gives JSON.
OBJECT = '{"a": 1}'
#: A batch whose 20 jobs all have such a seed among their first eleven; one in a hundred has not.
SOUND_BATCH = "bk3v9xq2h7mz"
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "it",
        "schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    },
}


def at_endpoint(endpoint: EchoEndpoint) -> Engine:
    options = {"base_url": endpoint.url, "api": "chat", "max_retries": "0", "timeout": "5"}
    return create("openai", EngineConfig("echo", options=options))


def sound_seed(seed: int) -> bool:
    return seed % 2 == 0


def test_given_an_endpoint_that_breaks_a_schema_when_run_then_new_seeds_are_tried_until_it_holds(
    database: Database,
) -> None:
    params = {"response_format": SCHEMA, "retry_invalid": 10, "max_tokens": 9}
    prompts = dict.fromkeys(range(1, 21), OBJECT)
    batch = a_batch(database, 20, chunk_size=20, prompts=prompts, params=params, uid=SOUND_BATCH)
    with EchoEndpoint() as endpoint, a_mill(database, at_endpoint(endpoint), name="openai") as mill:
        for chunk in messages(database):
            assert mill.work_on(chunk) is Ending.WRITTEN
    again = 0
    for line in range(1, 21):
        seeds = [seed_of_try(seed_of(batch.id, line), number) for number in range(11)]
        # What the endpoint is told are the low 31 bits: as odd as the whole.
        needed = next(at for at, seed in enumerate(seeds) if sound_seed(seed))
        job = job_now(database, batch, line)
        assert [one["text"] for one in job.samples] == [OBJECT]
        assert tries(job) == [
            ("invalid_structure", {"seed": seed, "max_tokens": 9}, ['1} {"a":'])
            for seed in seeds[:needed]
        ]
        again += needed
    assert again > 0
    assert len(endpoint.bodies) == 20 + again
    Snapshot.of(database).check()


def test_given_a_structure_that_never_holds_when_run_then_the_job_fails_and_may_be_retried(
    database: Database,
) -> None:
    params = {"response_format": {"type": "json_object"}, "retry_invalid": 2, "n": 2}
    batch = a_batch(database, 2, prompts={1: "no JSON at all", 2: "{}"}, params=params)
    with EchoEndpoint() as endpoint, a_mill(database, at_endpoint(endpoint), name="openai") as mill:
        assert mill.work_on(messages(database)[0]) is Ending.WRITTEN
        failed = job_now(database, batch, 1)
        assert (failed.state, failed.error_code) == (JobState.FAILED, "invalid_structure")
        assert failed.started_at == failed.history[0].started_at is not None
        assert "no JSON at all" not in str(failed.error_message)
        assert "(it is no JSON), after 3 answers" in str(failed.error_message)
        assert (failed.attempts, failed.samples) == (1, [])
        assert [code for code, _, _ in tries(failed)] == ["invalid_structure"] * 3
        assert [len(texts) for _, _, texts in tries(failed)] == [2, 2, 2]
        assert failed.history[-1].error_message == failed.error_message
        now = batch_now(database, batch)
        assert (now.succeeded, now.failed, now.completion_tokens) == (1, 1, 2)
        Snapshot.of(database).check()

        assert retry(database, batch) == 1
        (chunk,) = messages(database)
        assert mill.work_on(chunk) is Ending.WRITTEN
    again = job_now(database, batch, 1)
    assert (again.state, again.attempts, len(again.history)) == (JobState.FAILED, 1, 6)
    assert tries(again)[:3] == tries(again)[3:]
    Snapshot.of(database).check()


def test_given_an_endpoint_that_goes_away_when_a_structure_is_broken_then_the_job_waits_its_turn(
    database: Database,
) -> None:
    """A broken text is none: as with a first try, the job is queued again."""
    params = {"response_format": {"type": "json_object"}, "retry_invalid": 2, "seed": 1}
    batch = a_batch(database, 1, prompts={1: "no JSON"}, params=params)

    def away(number: int, _: object) -> Status | None:
        return Status(503) if number == 1 else None

    with (
        EchoEndpoint(faults=away) as endpoint,
        a_mill(database, at_endpoint(endpoint), name="openai") as mill,
    ):
        assert mill.work_on(messages(database)[0]) is Ending.WRITTEN
        waiting = job_now(database, batch, 1)
        assert (waiting.state, waiting.attempts) == (JobState.QUEUED, 1)
        assert [code for code, _, _ in tries(waiting)] == [
            "invalid_structure", "endpoint_unavailable",
        ]  # fmt: skip
        assert chunk_states(database, batch.key) == ["queued"]
        due(database)
        (chunk,) = messages(database)
        assert mill.work_on(chunk) is Ending.WRITTEN
    ended = job_now(database, batch, 1)
    assert (ended.state, ended.attempts, ended.error_code) == (
        JobState.FAILED, 2, "invalid_structure",
    )  # fmt: skip
    assert len(ended.history) == 5
    Snapshot.of(database).check()
