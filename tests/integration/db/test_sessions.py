"""Sessions that stand still in the middle of a transaction, whatever they did last, are ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from db.database import APPLICATION, Database
from db.queries.sessions import end_silent
from db.settings import Settings
from tests.support.processes import eventually

Connection = psycopg.Connection[tuple[object, ...]]


@contextmanager
def client(url: str, name: str = APPLICATION) -> Iterator[Connection]:
    """A session that PostgreSQL does not end by itself, with a row to change."""
    plain = url.replace("+psycopg", "")
    with psycopg.connect(plain, application_name=name) as connection:
        connection.execute("CREATE TEMPORARY TABLE numbers (n integer)")
        connection.execute("INSERT INTO numbers VALUES (1)")
        connection.commit()
        yield connection
        connection.close()  # it may be ended, and has nothing to commit


def after_a_statement(connection: Connection) -> None:
    connection.execute("UPDATE numbers SET n = 2")


def after_many(connection: Connection) -> None:
    connection.cursor().executemany("UPDATE numbers SET n = %s", [(2,), (3,), (4,)])


def within_a_copy(connection: Connection) -> object:
    copying = connection.cursor().copy("COPY numbers FROM STDIN")
    copying.__enter__().write("5\n" * 100_000)
    return copying


def within_a_pipeline(connection: Connection) -> object:
    pipeline = connection.pipeline()
    pipeline.__enter__()
    connection.execute("UPDATE numbers SET n = 2 RETURNING n").fetchone()
    return pipeline


def reading(connection: Connection) -> None:
    connection.execute("SELECT * FROM numbers")


def idle(connection: Connection) -> None:
    connection.execute("UPDATE numbers SET n = 2")
    connection.commit()


def ended(url: str, silence: float = 0.05) -> int:
    database = Database(Settings(database_url=url))
    with database.read() as connection:
        count = end_silent(connection, silence)
    database.close()
    return count


def sessions(url: str) -> set[object]:
    """The process ids of PostgreSQL's sessions."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        return {row[0] for row in connection.execute("SELECT pid FROM pg_stat_activity")}


@pytest.mark.parametrize(
    "stand_still", [after_a_statement, after_many, within_a_copy, within_a_pipeline]
)
def test_given_a_client_that_stands_still_in_a_transaction_when_looked_at_then_it_is_ended(
    postgres_url: str, stand_still: Callable[[Connection], object]
) -> None:
    with client(postgres_url) as connection:
        pid = connection.info.backend_pid
        kept = stand_still(connection)
        assert pid in sessions(postgres_url)
        assert ended(postgres_url, silence=60) == 0
        eventually(lambda: ended(postgres_url), what="it was silent for long enough", deadline=10)
        eventually(lambda: pid not in sessions(postgres_url), what="its session is gone")
        del kept


@pytest.mark.parametrize("behave", [reading, idle])
def test_given_a_client_that_holds_nobody_up_when_looked_at_then_it_is_left_alone(
    postgres_url: str, behave: Callable[[Connection], None]
) -> None:
    with client(postgres_url) as connection, client(postgres_url) as silent:
        behave(connection)
        after_a_statement(silent)
        eventually(lambda: ended(postgres_url), what="the other one is ended", deadline=10)
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_given_a_client_of_another_name_when_looked_at_then_it_is_left_alone(
    postgres_url: str,
) -> None:
    with client(postgres_url, "psql") as connection, client(postgres_url) as silent:
        after_a_statement(connection)
        after_a_statement(silent)
        eventually(lambda: ended(postgres_url), what="the other one is ended", deadline=10)
        assert connection.execute("SELECT 1").fetchone() == (1,)
