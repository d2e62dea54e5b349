"""PostgreSQL and Redis for tests: found, emptied, and left as they were."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from sqlalchemy.engine import make_url

from db.database import Database
from db.migrate import upgrade
from db.settings import Settings

POSTGRES = os.environ.get(
    "PROMPTMILL_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"
)
#: The last databases of this server are emptied at will: each test process has one.
_REDIS_DATABASE = 15 - int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_REDIS_SERVER = os.environ.get("PROMPTMILL_TEST_REDIS", "redis://127.0.0.1:6379").rstrip("/")
#: A URL that names no database gets the one of this test process.
REDIS = _REDIS_SERVER if urlsplit(_REDIS_SERVER).path else f"{_REDIS_SERVER}/{_REDIS_DATABASE}"


def missing(service: str, reason: object) -> None:
    """Skip on a laptop, fail in CI."""
    message = f"{service} is not there: {reason}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


class Postgres:
    """A server on which every test gets a database, copied from one with the schema."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._template: str | None = None

    def require(self) -> None:
        try:
            self._execute("SELECT 1")
        except psycopg.OperationalError as error:
            missing("PostgreSQL", error)

    @contextmanager
    def database(self, *, schema: bool = True) -> Iterator[str]:
        """A fresh database; its URL."""
        name = f"promptmill_test_{secrets.token_hex(6)}"
        template = f" TEMPLATE {self._schema()}" if schema else ""
        self._execute(f"CREATE DATABASE {name}{template}")
        try:
            yield self._url_of(name)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def clean(self) -> None:
        if self._template is not None:
            self._execute(f"DROP DATABASE {self._template} WITH (FORCE)")

    def _schema(self) -> str:
        if self._template is None:
            name = f"promptmill_test_{secrets.token_hex(6)}"
            self._execute(f"CREATE DATABASE {name}")
            self._template = name
            database = Database(Settings(database_url=self._url_of(name)))
            upgrade(database)
            database.close()
        return self._template

    def _url_of(self, name: str) -> str:
        return self._url.set(database=name).render_as_string(hide_password=False)

    def _execute(self, statement: str) -> None:
        plain = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement.encode())


def fresh_redis(url: str) -> str:
    """The URL, once its database answers and is empty."""
    client = redis.Redis.from_url(url)
    try:
        client.flushdb()
    except redis.ConnectionError as error:
        missing("Redis", error)
    finally:
        client.close()
    return url
