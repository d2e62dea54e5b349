"""Everything that one worker runs, in this process, without Celery."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from db.checkpoint import Weights, tokenizer_digest
from db.database import Database
from db.errors import DatabaseUnavailable, PromptmillError, SchemaMismatch, SettingsError
from db.ids import new_mark, queue_name, worker_name
from db.queries import jobs, workers
from db.records import Provenance
from db.schema import workers as worker_table
from db.settings import Settings
from tests.support.processes import eventually
from tests.support.stored import a_batch, batch_now, chunk_states
from worker.engine.echo import EchoEngine
from worker.engine.protocol import EngineInfo
from worker.process import WorkerProcess

MODEL = "test/process"


@pytest.fixture
def config(database_url: str) -> Settings:
    # Nobody connects to Redis: messages end in a list.
    return Settings(
        database_url=database_url,
        broker_url="redis://127.0.0.1:1/0",
        model=MODEL,
        engine="echo",
        lease=2,
        recovery_interval=0.2,
        flush_interval=0.02,
    )


class Started:
    """A worker that is stopped at the end of the test."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, str, int]] = []
        #: Those that wanted to leave by themselves.
        self.left: list[WorkerProcess] = []
        self._processes: list[WorkerProcess] = []

    def start(self, config: Settings) -> WorkerProcess:
        process = WorkerProcess(
            config,
            name=worker_name(1, new_mark()),
            send=self._send,
            leave=lambda: self.left.append(process),
        )
        self._processes.append(process)
        process.start()
        return process

    def stop(self) -> None:
        for process in self._processes:
            process.stop(0)

    def _send(self, messages: list[tuple[int, str, int]]) -> int:
        self.sent += messages
        return len(messages)


@pytest.fixture
def workers_here() -> Iterator[Started]:
    made = Started()
    yield made
    made.stop()


def test_given_a_batch_when_a_worker_starts_then_it_says_so_finds_the_work_and_leaves_its_card(
    config: Settings, database: Database, workers_here: Started, caplog: pytest.LogCaptureFixture
) -> None:
    queue = queue_name(MODEL)
    batch = a_batch(database, 8, queue=queue, model=MODEL)
    with caplog.at_level(logging.INFO):
        process = workers_here.start(config)
    assert f"ready: {MODEL} on cpu" in caplog.text
    eventually(lambda: batch_now(database, batch).finished, what="the batch is complete")
    with database.read() as connection:
        (shown,) = workers.alive(connection, within=60, queue=queue)
    assert (shown.model, shown.engine) == (MODEL, "echo")
    process.stop(5)
    process.stop(5)
    with database.read() as connection:
        assert workers.alive(connection, within=60) == []
        assert connection.execute(select(worker_table.c.stopped_at)).scalar_one() is not None
    assert batch_now(database, batch).succeeded == 8


class FromFiles(EchoEngine):
    """An echo that says that it has loaded a model's files."""

    folder = Path()

    def start(self) -> EngineInfo:
        return replace(super().start(), folder=self.folder, backend="read aloud")


def test_given_a_model_with_files_when_a_worker_starts_then_its_card_gets_their_digests(
    config: Settings,
    database: Database,
    workers_here: Started,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(FromFiles, "folder", tmp_path)
    monkeypatch.setattr("worker.engine.echo.EchoEngine", FromFiles)
    ready, go = threading.Event(), threading.Event()
    digest = Weights.digest

    def slow(self: Weights, memory: Path | None = None) -> str | None:
        ready.set()
        assert go.wait(60)
        return digest(self, memory)

    monkeypatch.setattr(Weights, "digest", slow)
    batch = a_batch(database, 2, queue=queue_name(MODEL), model=MODEL)
    process = workers_here.start(config)
    assert ready.wait(60)
    eventually(lambda: batch_now(database, batch).finished, what="it works meanwhile")

    def made() -> Provenance:
        with database.read() as connection:
            found = jobs.get_job(connection, batch.id, 1).provenance
        assert found is not None
        return found

    assert (made().weights, made().backend) == (None, "read aloud")
    assert made().tokenizer == tokenizer_digest(tmp_path)
    go.set()
    process.stop(5)
    assert made().weights == Weights.of(tmp_path).digest()


def test_given_a_worker_that_holds_a_chunk_when_stopped_then_the_chunk_is_there_for_others(
    config: Settings, database: Database, workers_here: Started
) -> None:
    batch = a_batch(database, 1, queue=queue_name(MODEL), prompts={1: "[[hang]]"})
    process = workers_here.start(config.with_(engine_options={"faults": "on"}))
    eventually(lambda: chunk_states(database, batch.key) == ["running"], what="it is claimed")
    process.stop(0.1)
    assert chunk_states(database, batch.key) == ["queued"]


def test_given_a_long_job_when_its_lease_would_run_out_then_the_heartbeat_keeps_it(
    config: Settings, database: Database, workers_here: Started
) -> None:
    batch = a_batch(database, 1, queue=queue_name(MODEL))
    workers_here.start(config.with_(engine_options={"latency": "2.5"}))
    eventually(lambda: batch_now(database, batch).finished, what="the batch is complete")
    now = batch_now(database, batch)
    assert (now.succeeded, now.failed) == (1, 0)
    with database.read() as connection:
        assert jobs.get_job(connection, batch.id, 1).attempts == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": None}, SettingsError, "give --model, or set PROMPTMILL_MODEL"),
        (
            {"engine": "ecko"},
            SettingsError,
            "PROMPTMILL_ENGINE: unknown engine 'ecko': did you mean 'echo'?",
        ),
        ({"engine_options": {"latency": "slow"}}, SettingsError, "latency"),
    ],
)
def test_given_what_can_not_work_when_a_worker_starts_then_it_says_why_and_claims_nothing(
    config: Settings,
    database: Database,
    workers_here: Started,
    changes: dict[str, object],
    error: type[PromptmillError],
    message: str,
) -> None:
    batch = a_batch(database, 4, queue=queue_name(MODEL))
    with pytest.raises(error, match=message):
        workers_here.start(config.model_copy(update=changes))
    assert chunk_states(database, batch.key) == ["queued"]
    with database.read() as connection:
        assert workers.alive(connection, within=60) == []


def test_given_a_database_without_a_schema_when_a_worker_starts_then_no_model_is_loaded(
    tmp_path: Path, workers_here: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: EchoEngine) -> EngineInfo:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(EchoEngine, "start", load)
    config = Settings(
        database_url=f"sqlite:///{tmp_path / 'empty.db'}",
        broker_url="redis://127.0.0.1:1/0",
        model=MODEL,
        engine="echo",
    )
    with pytest.raises(SchemaMismatch, match="promptmill db upgrade"):
        workers_here.start(config)


def _away_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database goes away while the model is loaded, and comes back."""
    register, failures = workers.register, iter([DatabaseUnavailable("it is away")])

    def registered(*arguments: Any) -> int:
        for failure in failures:
            raise failure
        return register(*arguments)

    monkeypatch.setattr(workers, "register", registered)


def test_given_a_database_that_goes_away_while_loading_when_started_then_it_waits(
    config: Settings, workers_here: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    _away_once(monkeypatch)
    assert workers_here.start(config).mill is not None


def test_given_a_signal_to_stop_when_the_database_is_awaited_then_it_ends(
    config: Settings, workers_here: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celery.worker.state.should_stop", 0)
    with pytest.raises(SystemExit):
        workers_here.start(config)
