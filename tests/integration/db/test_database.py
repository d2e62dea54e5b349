"""Connections: what breaks becomes one line that names the database, never its password."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, text

from db.clock import db_now
from db.database import Database
from db.errors import DatabaseError, DatabaseUnavailable, ValueRefused
from db.migrate import ready, upgrade
from db.queries import jobs
from db.queries.jobs import NewJob
from db.schema import jobs as job_table
from db.settings import Settings
from tests.support.stored import a_batch

SECRET = "hunter2"


def opened(url: str) -> Database:
    return Database(Settings(database_url=url))


def test_given_no_server_when_used_then_it_is_unavailable_and_the_password_is_not_told() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        database = opened(f"postgresql+psycopg://me:{SECRET}@127.0.0.1:{port}/d")
        with pytest.raises(DatabaseUnavailable) as failure:
            ready(database)
    message = failure.value.message
    assert message.startswith(f"can't use database postgresql+psycopg://me:***@127.0.0.1:{port}/d")
    assert "refused" in message
    assert "\n" not in message
    assert SECRET not in message


def test_given_a_folder_that_is_not_there_when_used_then_it_is_unavailable(tmp_path: Path) -> None:
    database = opened(f"sqlite:///{tmp_path / 'nowhere' / 'x.db'}")
    with pytest.raises(
        DatabaseUnavailable,
        match=r"nowhere/x\.db: unable to open database file; check PROMPTMILL_DATABASE_URL$",
    ):
        ready(database)


def test_given_a_home_that_is_a_file_when_used_then_the_message_names_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("")
    for one in (home, home / "deeper"):
        with pytest.raises(DatabaseUnavailable, match=r"can't use database .*home.*promptmill\.db"):
            ready(Database(Settings(home=one)))


def test_given_a_file_that_is_no_database_when_used_then_the_message_says_so(
    tmp_path: Path,
) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("These are notes. " * 100)
    with pytest.raises(DatabaseError, match="file is not a database"):
        ready(opened(f"sqlite:///{file}"))


def test_given_a_read_only_database_when_written_then_the_message_says_so(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    made = opened(f"sqlite:///{file}")
    upgrade(made)
    batch = a_batch(made, 1)
    made.close()
    read_only = opened(f"sqlite:///file:{file}?mode=ro&uri=true")
    with read_only.read() as connection:
        assert jobs.get_job(connection, batch.id, 1).line == 1
    with pytest.raises(DatabaseError) as failure:
        a_batch(read_only)
    assert failure.value.message.endswith("is read-only: make it writable, then go on")
    read_only.close()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if done.returncode != 0:
        pytest.skip(f"can't mount a file system here: {done.stderr.decode()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_given_a_full_disk_when_written_then_the_message_says_so_and_nothing_is_half_done(
    tiny_disk: Path,
) -> None:
    database = opened(f"sqlite:///{tiny_disk / 'x.db'}")
    upgrade(database)
    batch = a_batch(database, 1)
    large = [NewJob(line, '{"prompt": "%s"}' % ("x" * 10_000)) for line in range(2, 500)]
    with pytest.raises(DatabaseError) as failure, database.write() as connection:
        jobs.insert_slice(connection, batch.key, large, now=1.0)
    assert failure.value.message.endswith(
        "the disk is full, or that of temporary files (TMPDIR): free some space, then go on"
    )
    with database.read() as connection:
        assert connection.execute(select(job_table.c.line)).scalars().all() == [1]
    database.close()


def test_given_two_sqlite_writers_when_one_holds_the_lock_then_the_other_waits(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    first, second = opened(url), opened(url)
    upgrade(first)
    begun, waited = threading.Event(), []

    def write() -> None:
        begun.set()
        a_batch(second, 1)
        waited.append(True)

    writer = threading.Thread(target=write)
    with first.write() as connection:
        connection.execute(text("UPDATE batches SET name = 'x'"))
        writer.start()
        assert begun.wait(10)
        writer.join(0.3)
        assert writer.is_alive()
        # A reader does not wait for a writer.
        with second.read() as reader:
            assert reader.execute(text("SELECT count(*) FROM batches")).scalar_one() == 0
    writer.join(30)
    assert waited == [True]
    first.close()
    second.close()


def test_given_a_new_sqlite_file_when_another_process_is_making_it_then_the_first_use_waits(
    tmp_path: Path,
) -> None:
    file = tmp_path / "x.db"
    maker = sqlite3.connect(file, isolation_level=None)
    maker.execute("BEGIN IMMEDIATE")
    maker.execute("CREATE TABLE made (it INTEGER)")
    database = opened(f"sqlite:///{file}")
    found: list[str | None] = []
    reader = threading.Thread(target=lambda: found.append(database.revision()))
    reader.start()
    reader.join(0.3)
    assert reader.is_alive()
    maker.execute("COMMIT")
    reader.join(30)
    assert found == [None]
    maker.close()
    database.close()


def test_given_a_mistake_when_it_is_not_the_connections_then_it_is_a_database_error(
    database: Database,
) -> None:
    with pytest.raises(DatabaseError, match=r"nowhere") as failure, database.write() as connection:
        connection.execute(text("SELECT * FROM nowhere"))
    assert not isinstance(failure.value, ValueRefused)
    assert "\n" not in failure.value.message


def test_given_a_value_that_does_not_fit_when_written_then_it_is_that_value_that_is_refused(
    database: Database,
) -> None:
    a_batch(database, 1)
    with pytest.raises(ValueRefused) as failure, database.write() as connection:
        connection.execute(text("UPDATE batches SET model = NULL"))
    assert "model" in failure.value.message


def use(connection: Connection, _batch: int) -> None:
    connection.execute(text("SELECT 1"))


def copy(connection: Connection, batch: int) -> None:
    jobs.insert_slice(connection, batch, [NewJob(2, "{}")], now=1.0)


@pytest.mark.parametrize("call", [use, copy])
def test_given_a_killed_connection_when_used_then_it_is_unavailable_and_the_next_one_is_fine(
    postgres_url: str, call: Callable[[Connection, int], None]
) -> None:
    database, killer = opened(postgres_url), opened(postgres_url)
    batch = a_batch(database, 1)

    def used_after_its_end() -> None:
        with database.write() as connection:
            connection.execute(text("SELECT 1"))
            with killer.write() as other:
                other.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                )
            call(connection, batch.key)

    with pytest.raises(DatabaseUnavailable):
        used_after_its_end()
    assert database.revision() is not None
    database.close()
    killer.close()


def test_given_the_clock_when_asked_twice_in_a_transaction_then_it_goes_on(
    database: Database,
) -> None:
    with database.read() as connection:
        first = connection.execute(select(db_now())).scalar_one()
        here = time.time()
        while time.time() < here + 0.01:
            pass
        second = connection.execute(select(db_now())).scalar_one()
    # One machine here: the two clocks are one.
    assert abs(first - here) < 5
    assert 0.005 < second - first < 5


def test_given_postgresql_when_its_clock_is_another_then_db_now_is_the_databases(
    postgres_url: str,
) -> None:
    """The session's time zone moves what people see, never the seconds."""
    database = opened(postgres_url)
    with database.read() as connection:
        before = connection.execute(select(db_now())).scalar_one()
        connection.execute(text("SET TIME ZONE 'Asia/Kathmandu'"))
        after = connection.execute(select(db_now())).scalar_one()
        own = connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
    assert before <= after <= float(own) < before + 5
    database.close()
