"""Who is alive: by the database's clock."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from db.clock import db_now
from db.database import Database
from db.errors import ValueRefused
from db.queries import workers
from db.schema import workers as worker_table
from tests.support.stored import a_worker


def silence(database: Database, key: int, seconds: float) -> None:
    with database.write() as connection:
        connection.execute(
            update(worker_table)
            .where(worker_table.c.id == key)
            .values(heartbeat_at=db_now() - seconds)
        )


def names(database: Database, within: float = 30, queue: str | None = None) -> list[str]:
    with database.read() as connection:
        return [one.name for one in workers.alive(connection, within=within, queue=queue)]


def test_given_a_worker_when_it_registers_and_beats_then_its_numbers_are_shown(
    database: Database,
) -> None:
    key = a_worker(database, name="one", device="cuda:1", kv_tokens=4096, parameters=7 * 10**9)
    beat = {
        "jobs": 3,
        "in_flight": 2,
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "tokens_per_second": 1.5,
    }
    with database.write() as connection:
        workers.beat(connection, key, beat)
    with database.read() as connection:
        (found,) = workers.alive(connection, within=30)
    assert (found.name, found.device, found.kv_tokens) == ("one", "cuda:1", 4096)
    assert found.parameters == 7 * 10**9
    assert {name: getattr(found, name) for name in beat} == beat
    assert 0 <= found.silent_for < 5
    assert found.stopped_at is None


def test_given_silent_and_stopped_workers_when_asked_who_is_alive_then_they_are_not(
    database: Database,
) -> None:
    for name in ("alive", "silent", "stopped"):
        key = a_worker(database, name=name, queue=f"promptmill.{name}")
        if name == "silent":
            silence(database, key, 60)
        if name == "stopped":
            with database.write() as connection:
                workers.stop(connection, key)
    assert names(database) == ["alive"]
    assert names(database, within=120) == ["alive", "silent"]
    assert names(database, queue="promptmill.alive") == ["alive"]
    assert names(database, queue="promptmill.silent") == []


def test_given_a_silent_worker_when_it_beats_again_then_it_is_alive_again(
    database: Database,
) -> None:
    key = a_worker(database, name="back")
    silence(database, key, 60)
    assert names(database) == []
    with database.write() as connection:
        workers.beat(connection, key, {"jobs": 1})
    assert names(database) == ["back"]


def test_given_two_workers_of_one_name_when_registered_then_the_second_is_refused(
    database: Database,
) -> None:
    a_worker(database, name="twin")
    with pytest.raises(ValueRefused):
        a_worker(database, name="twin")
