"""Real services for every test that asks: SQLite always, PostgreSQL and Redis where they are.

A service that is missing skips its tests on a laptop and fails them in CI (CI=true). Where they
are is told by PROMPTMILL_TEST_POSTGRES and PROMPTMILL_TEST_REDIS.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.database import Database
from db.migrate import upgrade
from db.settings import PREFIX, Settings, settings
from tests.support.services import POSTGRES, REDIS, Postgres, fresh_redis

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs ignore Ctrl-C, and so would every process that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the developer's leaks into a test, and none of a test's into the home."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(f"{PREFIX}HOME", str(tmp_path / "home"))
    settings.cache_clear()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server on which databases can be made."""
    server = Postgres(POSTGRES)
    server.require()
    yield server
    server.clean()


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """A fresh database with promptmill's schema; gone after the test."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def redis_url() -> str:
    """An empty Redis database of our own."""
    return fresh_redis(REDIS)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Both databases, one after the other, each fresh and with its schema."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    url = f"sqlite:///{tmp_path / 'test.db'}"
    made = Database(Settings(database_url=url))
    upgrade(made)
    made.close()
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(Settings(database_url=database_url))
    yield made
    made.close()
