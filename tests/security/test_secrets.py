"""The passwords in the two URLs are shown nowhere: not in output, logs, nor the process list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from db.database import Database
from db.migrate import upgrade
from db.settings import Settings
from tests.acceptance.mill import Mill
from tests.support.processes import WorkerProcess, eventually, promptmill, workers
from tests.support.servers import POSTGRES_PASSWORD, PrivatePostgres, PrivateRedis

_REDIS_PASSWORD = "marker-password-of-redis"
_MARK = "marker-password"


class Guarded(Mill):
    """A mill over servers that ask for a password, and can be killed."""

    broker: PrivateRedis
    server: PrivatePostgres


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    with (
        PrivateRedis(tmp_path / "redis", password=_REDIS_PASSWORD) as broker,
        PrivatePostgres() as server,
        workers(tmp_path / "workers") as start,
    ):
        database = Database(Settings(database_url=server.url))
        upgrade(database)
        database.close()
        env = {"PROMPTMILL_DATABASE_URL": server.url, "PROMPTMILL_BROKER_URL": broker.url}
        made = Guarded(tmp_path, env, start)
        made.broker, made.server = broker, server
        yield made
        made.client.close()


def _command_lines(process: psutil.Process) -> list[str]:
    family = [process, *process.children(recursive=True)]
    return [" ".join(one.cmdline()) for one in family]


def _everything(mill: Mill, batch: str) -> str:
    """What the commands that look at things print, to both streams, as text and as JSON."""
    said = []
    looks: list[tuple[str, ...]] = [
        ("status", batch), ("status", f"{batch}-1"), ("list",), ("workers",), ("doctor",),
    ]  # fmt: skip
    for look in [*looks, ("submit", mill.numbered(1), "--model", mill.model)]:
        for form in ((), ("--json",)):
            done = mill.run("--debug", *look, *form)
            said += [done.stdout, done.stderr]
    return "\n".join(said)


def test_given_passwords_when_everything_runs_then_none_is_shown(guarded: Guarded) -> None:
    assert _MARK in POSTGRES_PASSWORD
    worker = guarded.worker(PROMPTMILL_LOG_LEVEL="DEBUG")
    batch = guarded.submit(3)
    guarded.finished(batch)
    following = guarded.background("watch", guarded.submit(1, "--model", "test/nobody"))
    try:
        for pid in (worker.process.pid, following.pid):
            assert _MARK not in "\n".join(_command_lines(psutil.Process(pid)))
    finally:
        following.kill()
        following.communicate()
    assert _MARK not in _everything(guarded, batch)
    assert "ready:" in worker.said()
    assert _MARK not in worker.said()


def test_given_services_that_go_away_when_everybody_complains_then_no_password_is_shown(
    guarded: Guarded,
) -> None:
    worker: WorkerProcess = guarded.worker(PROMPTMILL_LOG_LEVEL="DEBUG")
    batch = guarded.submit(1)
    guarded.finished(batch)
    guarded.broker.kill()
    guarded.server.kill()
    guarded.env["PROMPTMILL_PATIENCE"] = "0"
    said = _everything(guarded, batch)
    assert "can't use database postgresql+psycopg://postgres:***@" in said
    assert "can't reach Redis at redis://:***@" in said
    assert _MARK not in said
    eventually(lambda: "can't use database" in worker.said(), what="the worker misses its database")
    eventually(lambda: "Connection refused" in worker.said(), what="the worker misses its broker")
    assert _MARK not in worker.said()


@pytest.mark.parametrize(
    "setting",
    [
        {"PROMPTMILL_DATABASE_URL": f"postgresql+psycopg://me:{_MARK}@h:1:2/x"},
        {"PROMPTMILL_DATABASE_URL": f"postgresql+psycopg://me:x@y:{_MARK}/z@h/x"},
        {"PROMPTMILL_DATABASE_URL": f"mysql://me:{_MARK}@h/x"},
        {"PROMPTMILL_DATABASE_URL": f"postgresql+psycopg://me:/{_MARK}@127.0.0.1:1/x"},
        {"PROMPTMILL_BROKER_URL": f"amqp://me:{_MARK}@h/x"},
        {"PROMPTMILL_BROKER_URL": f"redis://:{_MARK}@127.0.0.1:port/0"},
        {"PROMPTMILL_BROKER_URL": f"redis://:#{_MARK}@127.0.0.1:1/0"},
        {"PROMPTMILL_BROKER_URL": f"redis://:{_MARK}@[/0"},
    ],
    ids=lambda setting: next(iter(setting.values())).replace(_MARK, "PASSWORD"),
)
def test_given_a_broken_url_when_it_is_refused_then_its_password_is_not_shown(
    setting: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a prompt\n")
    for words in (("doctor",), ("submit", str(file), "--model", "m"), ("list",)):
        done = promptmill(*words, env={**setting, "PROMPTMILL_PATIENCE": "0"})
        assert _MARK not in done.stdout + done.stderr, words
