"""The doctor with real databases and real Redis servers, present and absent."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from db.database import Database
from db.embedded import embedded_broker
from db.ids import queue_name
from db.migrate import ready
from db.redis_server import Answer, find_server, ping
from db.settings import Settings
from producer.doctor import Check, examine
from tests.support.services import Postgres
from tests.support.stored import a_batch, a_claim, a_worker

MODEL = "org/some-model"
DEADLINE = 20.0


def settings_for(tmp_path: Path, **changes: str | None) -> Settings:
    return Settings(home=tmp_path / "home", engine="echo", **changes)  # type: ignore[arg-type]


def found(settings: Settings, model: str | None = None) -> dict[str, Check]:
    """The findings by name; of two with one name the worse."""
    order = ("ok", "warning", "error")
    checks = sorted(examine(settings, model=model), key=lambda check: order.index(check.state))
    return {check.name: check for check in checks}


@pytest.fixture
def closed_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def redis_server(*options: str) -> Iterator[str]:
    """A Redis of our own on a unix socket, as started with these options; its Celery URL."""
    server = find_server()
    if server is None:
        pytest.skip("needs a redis-server or valkey-server")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "redis.sock"
        command = [
            str(server.path),
            "--port",
            "0",
            "--unixsocket",
            str(path),
            "--save",
            "",
            *options,
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder)
        try:
            assert _listens(path, process)
            yield f"redis+socket://{path}"
        finally:
            process.terminate()
            process.wait()


def _listens(path: Path, process: subprocess.Popen[bytes]) -> bool:
    """Wait until it answers PING, were it to ask for a password; False if it ended."""
    deadline = time.monotonic() + DEADLINE
    while process.poll() is None and time.monotonic() < deadline:
        if ping(path) is not Answer.ABSENT:
            return True
    return False


def test_given_nothing_set_up_when_examined_then_all_is_well_and_nothing_is_made(
    tmp_path: Path,
) -> None:
    checks = found(settings_for(tmp_path))
    assert checks["database"].finding.endswith("is not there yet: the first command makes it")
    assert checks["broker"].finding.endswith("not running: the first user starts it")
    assert {check.state for check in checks.values()} <= {"ok", "warning"}
    assert not (tmp_path / "home").exists()


def test_given_the_embedded_services_running_when_examined_then_they_are_found(
    tmp_path: Path,
) -> None:
    settings = settings_for(tmp_path)
    database = Database(settings)
    ready(database)
    database.close()
    with embedded_broker(settings.home):
        checks = found(settings)
    assert checks["database"].finding.startswith("SQLite 3.")
    assert checks["schema"].state == "ok"
    assert checks["broker"].finding.endswith(", running")
    assert (checks["workers"].state, checks["workers"].finding) == ("ok", "none alive")


def test_given_postgres_and_redis_when_examined_then_both_answer(
    postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    checks = found(settings_for(tmp_path, database_url=postgres_url, broker_url=redis_url))
    assert checks["database"].state == "ok"
    assert checks["database"].finding.startswith("PostgreSQL ")
    assert checks["database"].finding.endswith(" ms")
    assert checks["schema"].state == "ok"
    assert checks["broker"].state == "ok"
    assert "answers in" in checks["broker"].finding


def test_given_a_postgres_without_a_schema_when_examined_then_the_command_is_named(
    postgres: Postgres, redis_url: str, tmp_path: Path
) -> None:
    with postgres.database(schema=False) as url:
        checks = found(settings_for(tmp_path, database_url=url, broker_url=redis_url), MODEL)
    assert checks["database"].state == "ok"
    assert (checks["schema"].state, checks["schema"].advice) == (
        "error",
        "run 'promptmill db upgrade'",
    )
    assert "workers" not in checks


def test_given_unreachable_services_when_examined_then_each_is_told_without_its_password(
    closed_port: int, tmp_path: Path
) -> None:
    settings = settings_for(
        tmp_path,
        database_url=f"postgresql+psycopg://me:s3cret@127.0.0.1:{closed_port}/x",
        broker_url=f"redis://:s3cret@127.0.0.1:{closed_port}/0",
    )
    checks = found(settings)
    assert checks["database"].state == "error"
    assert checks["database"].advice == "start it, or mend PROMPTMILL_DATABASE_URL"
    assert checks["broker"].state == "error"
    assert checks["broker"].finding.startswith("can't reach Redis at redis://:***@127.0.0.1")
    assert "s3cret" not in str(list(checks.values()))
    assert checks["disk"].finding
    assert "schema" not in checks


def test_given_a_database_that_does_not_exist_when_examined_then_it_is_told(
    postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    url = postgres_url.rpartition("/")[0] + "/no_such_database"
    checks = found(settings_for(tmp_path, database_url=url, broker_url=redis_url))
    assert checks["database"].state == "error"
    assert 'database "no_such_database" does not exist' in checks["database"].finding


def test_given_a_sqlite_file_that_is_not_there_when_examined_then_it_is_not_made(
    redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "gone.db"
    checks = found(settings_for(tmp_path, database_url=f"sqlite:///{file}", broker_url=redis_url))
    assert (checks["database"].state, checks["database"].finding) == (
        "error",
        f"{file} does not exist",
    )
    assert not file.exists()


def test_given_a_file_that_is_no_database_when_examined_then_it_is_told(
    redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "text.db"
    file.write_text("this is no database, however long one looks at it" * 50)
    checks = found(settings_for(tmp_path, database_url=f"sqlite:///{file}", broker_url=redis_url))
    assert checks["database"].state == "error"
    assert "file is not a database" in checks["database"].finding


@pytest.mark.parametrize("url", ["postgresql+psycopg://h:port/d", "postgresql+psycopg://[::1/d"])
def test_given_a_broken_url_when_examined_then_its_form_is_shown(
    url: str, redis_url: str, tmp_path: Path
) -> None:
    (check,) = [
        check
        for check in examine(settings_for(tmp_path, database_url=url, broker_url=redis_url))
        if check.name == "database"
    ]
    assert check.state == "error"
    assert check.finding.startswith("PROMPTMILL_DATABASE_URL is no database URL")


def test_given_a_redis_that_may_forget_when_examined_then_it_warns(
    postgres_url: str, tmp_path: Path
) -> None:
    options = ("--appendonly", "no", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    with redis_server(*options) as url:
        checks = found(settings_for(tmp_path, database_url=postgres_url, broker_url=url))
    assert checks["broker"].state == "ok"
    assert checks["broker eviction"].state == "warning"
    assert "allkeys-lru" in checks["broker eviction"].finding
    assert checks["broker persistence"].state == "warning"


def test_given_a_redis_that_keeps_all_when_examined_then_all_is_well(
    postgres_url: str, tmp_path: Path
) -> None:
    with redis_server("--appendonly", "yes", "--maxmemory-policy", "noeviction") as url:
        checks = found(settings_for(tmp_path, database_url=postgres_url, broker_url=url))
    assert {checks[name].state for name in checks if name.startswith("broker")} == {"ok"}


def test_given_a_redis_that_wants_a_password_when_examined_then_it_is_told(
    postgres_url: str, tmp_path: Path
) -> None:
    with redis_server("--requirepass", "s3cret") as url:
        checks = found(settings_for(tmp_path, database_url=postgres_url, broker_url=url))
    assert checks["broker"].state == "error"
    assert "uthentication" in checks["broker"].finding


def test_given_waiting_chunks_when_no_worker_serves_them_then_it_says_how_to_start_one(
    database: Database, redis_url: str, tmp_path: Path
) -> None:
    a_batch(database, 8, chunk_size=4, queue=queue_name(MODEL), model=MODEL)
    settings = settings_for(tmp_path, database_url=database.url, broker_url=redis_url)
    checks = found(settings, MODEL)
    assert (checks["workers"].state, checks["queue"].state) == ("warning", "error")
    assert checks["queue"].finding == (f"2 chunks wait for {MODEL}, and no worker serves it")
    assert checks["queue"].advice == f"start one: promptmill worker --model {MODEL}"


def test_single_chunk_waits(database: Database, redis_url: str, tmp_path: Path) -> None:
    a_batch(database, 1, queue=queue_name(MODEL), model=MODEL)
    settings = settings_for(tmp_path, database_url=database.url, broker_url=redis_url)
    finding = found(settings, MODEL)["queue"].finding
    assert finding == f"1 chunk waits for {MODEL}, and no worker serves it"


def test_given_waiting_chunks_when_a_worker_serves_them_then_all_is_well(
    database: Database, redis_url: str, tmp_path: Path
) -> None:
    queue = queue_name(MODEL)
    a_batch(database, 8, chunk_size=4, queue=queue, model=MODEL)
    worker = a_worker(database, queue=queue, name="host:1:abc", device="cuda:0")
    settings = settings_for(tmp_path, database_url=database.url, broker_url=redis_url)
    checks = found(settings, MODEL)
    assert checks["workers"].finding == f"1 alive for {MODEL}: host:1:abc on cuda:0"
    assert "queue" not in checks
    assert a_claim(database, worker, queue=queue) is not None
