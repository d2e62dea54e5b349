"""Producers wait for a database that is away, and store nothing twice."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from sqlalchemy import Connection

from db.database import Database
from db.errors import DatabaseUnavailable, DatabaseUnwritable
from db.patience import patiently
from db.records import Batch
from db.settings import Settings
from producer import Client
from tests.support.invariants import Snapshot
from tests.support.processes import eventually


class Shaky(Database):
    """Every second transaction fails: half of these before its commit, half after it."""

    count = 0

    @contextmanager
    def write(self) -> Iterator[Connection]:
        self.count += 1
        with super().write() as connection:
            yield connection
            if self.count % 4 == 1:
                raise DatabaseUnavailable("the connection was cut before the commit")
        if self.count % 4 == 3:
            raise DatabaseUnavailable("the connection was cut after the commit")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.patience._FIRST", 0.01)
    monkeypatch.setattr("db.patience._LONGEST", 0.05)
    monkeypatch.setattr("producer.submission.slices.SLICE", 7)


@pytest.fixture
def client(database_url: str) -> Iterator[Client]:
    config = Settings(database_url=database_url, broker_url="redis://127.0.0.1:1/0", model="m")
    made = Client(config)
    made.__dict__["database"] = Shaky(config)
    made.__dict__["ping_broker"] = lambda: None
    yield made
    made.close()


def lines(count: int) -> Iterator[dict[str, str]]:
    for number in range(1, count + 1):
        yield {"prompt": f"prompt {number}", "custom_id": f"n{number}"}


def test_given_a_database_that_keeps_going_away_when_submitted_then_every_line_is_there_once(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    batch = client.submit(lines(40), name="shaky")
    stored = Snapshot.of(client.database)
    stored.check()
    assert [job.line for job in stored.jobs] == list(range(1, 41))
    assert [job.custom_id for job in stored.jobs] == [f"n{n}" for n in range(1, 41)]
    assert batch.total == 40
    assert "waiting for it" in caplog.text
    assert "it is back: going on" in caplog.text
    assert client.submit(lines(40), name="shaky").id == batch.id


def test_given_twins_when_the_commit_is_in_doubt_then_only_they_are_bad(client: Client) -> None:
    twins = [*lines(20), {"prompt": "again", "custom_id": "n3"}]
    batch = client.submit(twins, skip_invalid=True)
    assert (batch.total, batch.failed) == (21, 1)


def wait(client: Client, batch: str, seen: list[str]) -> None:
    """Until the first look."""

    def on_progress(now: Batch) -> None:
        seen.append(now.id)
        raise StopIteration

    with suppress(StopIteration):
        client.wait(batch, on_progress=on_progress, timeout=60, poll=0.01)


def test_given_a_database_that_is_away_for_a_while_when_waited_for_then_it_goes_on(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    batch = client.submit(lines(1))
    away = threading.Event()
    asked: list[int] = []
    away.set()

    class Away(Database):
        @contextmanager
        def read(self) -> Iterator[Connection]:
            asked.append(1)
            if away.is_set():
                raise DatabaseUnavailable("it is away")
            with super().read() as connection:
                yield connection

    client.database.close()
    client.__dict__["database"] = Away(client.settings)
    seen: list[str] = []
    thread = threading.Thread(target=lambda: wait(client, batch.id, seen), daemon=True)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        thread.start()
        eventually(lambda: len(asked) > 3, what="it was tried again")
        away.clear()
        thread.join(60)
    assert seen == [batch.id]
    waits = [one.getMessage()[:11] for one in caplog.records if one.name == "db.patience"]
    assert waits == ["it is away;", "it is back:"]


def test_given_a_full_disk_when_stored_then_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise DatabaseUnwritable("the disk is full")

    monkeypatch.setattr("time.sleep", lambda _seconds: pytest.fail("it waited"))
    with pytest.raises(DatabaseUnwritable):
        patiently(full, 60)


def test_given_a_database_that_stays_away_when_the_patience_ends_then_it_is_told() -> None:
    def away() -> None:
        raise DatabaseUnavailable("it is away")

    with pytest.raises(DatabaseUnavailable):
        patiently(away, 0.1)
