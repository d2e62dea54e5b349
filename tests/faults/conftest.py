"""Installations whose servers are the test's own, so that it may do to them what it likes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from db.database import Database
from db.migrate import upgrade
from db.schema import REVISIONS, metadata
from db.settings import Settings
from tests.acceptance.mill import Mill
from tests.faults.proof import some
from tests.support.processes import workers
from tests.support.servers import PrivatePostgres, PrivateRedis

_TABLES = ", ".join(table.name for table in metadata.sorted_tables)


@pytest.fixture(scope="session")
def one_postgres() -> Iterator[PrivatePostgres]:
    """A PostgreSQL with promptmill's schema, started once for all fault tests."""
    with PrivatePostgres() as server:
        _upgrade(server.url)
        yield server


@pytest.fixture(scope="session")
def one_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    with PrivateRedis(tmp_path_factory.mktemp("faults") / "redis", appendonly=True) as server:
        yield server


@pytest.fixture
def own_postgres(one_postgres: PrivatePostgres) -> PrivatePostgres:
    """It, running and empty, whatever the test before did."""
    if one_postgres.process.poll() is not None:
        one_postgres.start()
    plain = one_postgres.url.replace("+psycopg", "")
    with psycopg.connect(plain, connect_timeout=5, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute(f"TRUNCATE {_TABLES} RESTART IDENTITY".encode())
        connection.execute("UPDATE alembic_version SET version_num = %s", [REVISIONS[-1]])
    return one_postgres


@pytest.fixture
def own_redis(one_redis: PrivateRedis) -> PrivateRedis:
    """It, running and empty, whatever the test before did."""
    if one_redis.process.poll() is not None:
        one_redis.start()
    with one_redis.client() as client:
        client.flushall()
    return one_redis


@pytest.fixture(params=some(["postgresql"], ["sqlite"]))
def either_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Both databases, one after the other; in the short form PostgreSQL alone."""
    return _url_of(request, tmp_path)


@pytest.fixture(params=["postgresql", "sqlite"])
def both_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Both databases, one after the other."""
    return _url_of(request, tmp_path)


def _url_of(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        server: PrivatePostgres = request.getfixturevalue("own_postgres")
        return server.url
    return sqlite_url(tmp_path)


@pytest.fixture
def either(either_url: str, own_redis: PrivateRedis, tmp_path: Path) -> Iterator[Mill]:
    """An installation on either database."""
    yield from installation(tmp_path, either_url, own_redis)


@pytest.fixture
def both(both_url: str, own_redis: PrivateRedis, tmp_path: Path) -> Iterator[Mill]:
    """An installation on each database, whatever the form."""
    yield from installation(tmp_path, both_url, own_redis)


@pytest.fixture
def mill(own_postgres: PrivatePostgres, own_redis: PrivateRedis, tmp_path: Path) -> Iterator[Mill]:
    """An installation on PostgreSQL."""
    yield from installation(tmp_path, own_postgres.url, own_redis)


@pytest.fixture
def on_sqlite(own_redis: PrivateRedis, tmp_path: Path) -> Iterator[Mill]:
    """An installation on SQLite."""
    yield from installation(tmp_path, sqlite_url(tmp_path), own_redis)


def installation(folder: Path, url: str, redis: PrivateRedis) -> Iterator[Mill]:
    """Small chunks, so that there are many messages; whatever is left of it is killed."""
    env = {
        "PROMPTMILL_DATABASE_URL": url,
        "PROMPTMILL_BROKER_URL": redis.url,
        "PROMPTMILL_CHUNK_SIZE": "8",
    }
    with workers(folder / "workers") as start:
        made = Mill(folder, env, start)
        yield made
        made.client.close()


def sqlite_url(folder: Path) -> str:
    """A new SQLite database with the schema."""
    url = f"sqlite:///{folder / 'mill.db'}"
    _upgrade(url)
    return url


def _upgrade(url: str) -> None:
    database = Database(Settings(database_url=url))
    upgrade(database)
    database.close()
