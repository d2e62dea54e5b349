"""The database: does it answer, how fast, and does its schema fit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from sqlalchemy import make_url, text
from sqlalchemy.exc import ArgumentError

from db.database import Database, is_pooled
from db.errors import DatabaseError
from db.schema import REVISIONS
from db.settings import Settings
from producer.doctor.check import Check

_VERSION = {
    "postgresql": ("PostgreSQL", "SHOW server_version"),
    "sqlite": ("SQLite", "SELECT sqlite_version()"),
}

_UPGRADE = "run 'promptmill db upgrade'"


def storage_checks(settings: Settings) -> Iterator[Check]:
    """Is it reachable, and is its schema this program's? Makes no file and no table."""
    try:
        file = database_file(settings)
    except (ArgumentError, ValueError):  # its words may have a piece of the password
        yield Check(
            "database",
            "error",
            "PROMPTMILL_DATABASE_URL is no database URL",
            "write it as postgresql://user:password@host:5432/name, and in the password "
            "@ as %40, : as %3A, / as %2F",
        )
        return
    if file is not None and not file.exists():
        yield _absent(settings, file)
        return
    with closing(Database(settings, pool_size=1)) as database:
        try:
            yield _reached(database)
        except DatabaseError as error:
            yield Check(
                "database",
                "error",
                error.message,
                "start it, or mend PROMPTMILL_DATABASE_URL",
            )
            return
        yield schema_check(database.revision(), embedded=settings.embedded_database)


def database_file(settings: Settings) -> Path | None:
    """SQLite's file; None for a server. Raises ArgumentError or ValueError for a broken URL."""
    url = make_url(settings.effective_database_url)
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def schema_check(found: str | None, *, embedded: bool) -> Check:
    """How the schema revision `found` fits; an embedded database is upgraded by its users."""
    if found == REVISIONS[-1]:
        return Check("schema", "ok", f"revision {found}, the current one")
    if found is not None and found not in REVISIONS:
        finding = f"revision {found}, newer than this promptmill knows ({REVISIONS[-1]})"
        return Check("schema", "error", finding, "install a newer promptmill")
    finding = (
        "there is none yet" if found is None else f"revision {found}, older than {REVISIONS[-1]}"
    )
    if embedded:
        return Check("schema", "ok", f"{finding}: the next command brings it up to date")
    return Check("schema", "error", finding, _UPGRADE)


def _absent(settings: Settings, file: Path) -> Check:
    if settings.embedded_database:
        return Check("database", "ok", f"{file} is not there yet: the first command makes it")
    return Check("database", "error", f"{file} does not exist", _UPGRADE)


def _reached(database: Database) -> Check:
    name, question = _VERSION[database.dialect]
    with database.read() as connection:
        version = str(connection.execute(text(question)).scalar_one()).split()[0]
        begun = time.perf_counter()
        connection.execute(text("SELECT 1"))
        milliseconds = (time.perf_counter() - begun) * 1000
        through = ", through a connection pooler" if is_pooled(connection) else ""
    return Check("database", "ok", f"{name} {version} answers in {milliseconds:.1f} ms{through}")
