"""A pooler in transaction mode gives each transaction whichever session of the server is free."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from sqlalchemy import text

from db.database import Database, is_pooled
from db.settings import Settings
from producer import Client
from producer.doctor.storage import storage_checks
from tests.support.servers import PgBouncer

_SILENCE = text("SHOW idle_in_transaction_session_timeout")
_PREPARED = text("SELECT count(*) FROM pg_prepared_statements")


@pytest.fixture
def pooled(postgres_url: str) -> Iterator[Settings]:
    with PgBouncer(postgres_url) as pooler:
        yield Settings(
            database_url=pooler.url, broker_url="redis://127.0.0.1:1/0", model="m", lease=20
        )


def _ask_often(database: Database) -> int:
    """Ask the same more often than a driver needs to prepare it; how many are prepared."""
    for _ in range(8):
        with database.write() as connection:
            connection.execute(text("SELECT :one"), {"one": 1})
    with database.read() as connection:
        return int(connection.execute(_PREPARED).scalar_one())


def test_no_statement_is_prepared_on_the_server(postgres_url: str) -> None:
    database = Database(Settings(database_url=postgres_url), pool_size=1)
    assert _ask_often(database) == 0
    with database.read() as connection:
        assert not is_pooled(connection)
        assert connection.execute(_SILENCE).scalar() == "15s"
    database.close()


def test_clients_share_sessions_of_a_pooler(pooled: Settings, postgres_url: str) -> None:
    with ExitStack() as stack:
        databases = [Database(pooled, pool_size=1) for _ in range(6)]
        for database in databases:
            stack.callback(database.close)
        with ThreadPoolExecutor(len(databases)) as pool:
            assert list(pool.map(_ask_often, databases)) == [0] * len(databases)
        with databases[0].write() as connection:
            assert is_pooled(connection)
            assert connection.execute(_SILENCE).scalar() == "10s"
        # And nothing of it stays with the session
        with databases[1].engine.connect() as connection:
            raw = connection.connection.dbapi_connection
            assert raw is not None
            connection.rollback()
            raw.rollback()
            assert raw.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("0",)


def test_batch_is_submitted_and_read_through_a_pooler(pooled: Settings) -> None:
    with Client(pooled) as first, Client(pooled) as second:
        for client in (first, second, first, second):
            client.__dict__["ping_broker"] = lambda: None
            client.__dict__["_send"] = len
            batch = client.submit(f"prompt {number}" for number in range(300))
            assert batch.total == 300
            assert list(client.results(batch.id)) == []
            assert client.cancel(batch.id).cancelled == 300
            assert len(list(client.results(batch.id))) == 300


def test_doctor_says_that_there_is_a_pooler(pooled: Settings) -> None:
    (reached, _) = storage_checks(pooled)
    assert reached.state == "ok"
    assert reached.finding.endswith(", through a connection pooler")
