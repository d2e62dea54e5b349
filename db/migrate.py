"""Is the schema this program's? And if not: bring it there, once, whoever asks first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from db.database import Database
from db.errors import SchemaMismatch
from db.schema import REVISIONS
from db.settings import redact

if TYPE_CHECKING:
    from alembic.config import Config

#: Any number that no other program locks; "mill" in ASCII.
_ADVISORY_LOCK = 0x6D696C6C


def ready(database: Database) -> None:
    """Check that the database answers and that its schema is this program's.

    The embedded database is created and upgraded by itself. Raises DatabaseUnavailable or
    SchemaMismatch, each saying what to do.
    """
    found = database.revision()
    if found == REVISIONS[-1]:
        return
    if database.embedded and (found is None or found in REVISIONS):
        upgrade(database)
        return
    raise SchemaMismatch(_mismatch(found, redact(database.url)))


def upgrade(database: Database) -> tuple[str | None, str]:
    """Run the migrations that are missing; the revisions before and after.

    One transaction under a lock: two that start at once run it one after the other, and one
    that is killed leaves the schema as it was. Raises SchemaMismatch for a newer schema.
    """
    before = database.revision()
    if before is not None and before not in REVISIONS:
        raise SchemaMismatch(_mismatch(before, redact(database.url)))
    from alembic import command  # a quarter of a second, and seldom needed

    with database.write() as connection:
        if database.dialect == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before, REVISIONS[-1]


def alembic_config() -> Config:
    """Alembic's configuration: no file of its own, so that an installed package has it too."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def _mismatch(found: str | None, url: str) -> str:
    if found is None:
        return f"database {url} has no promptmill schema: run 'promptmill db upgrade'"
    if found in REVISIONS:
        return f"database {url} has the older schema {found}: run 'promptmill db upgrade'"
    return (
        f"database {url} has schema {found}, newer than this promptmill knows "
        f"({REVISIONS[-1]}): install a newer promptmill"
    )
