"""One PostgreSQL database for a folder of tests, emptied before each: far quicker than a new one.

A folder takes part by importing both fixtures into its conftest.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from db.schema import REVISIONS, metadata
from tests.support.services import Postgres

_TABLES = ", ".join(table.name for table in metadata.sorted_tables)


@pytest.fixture(scope="session")
def kept_postgres_url(postgres: Postgres) -> Iterator[str]:
    """A database with promptmill's schema, for as long as the tests run."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def postgres_url(kept_postgres_url: str) -> str:
    """The kept database, as good as new: no rows, no connections, first ids."""
    plain = kept_postgres_url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain, connect_timeout=5) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute(f"TRUNCATE {_TABLES} RESTART IDENTITY".encode())
        connection.execute("UPDATE alembic_version SET version_num = %s", [REVISIONS[-1]])
    return kept_postgres_url
