"""Bring a database's schema to this program's revision, once, whoever asks first."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from db.database import Database
from db.errors import SchemaMismatch
from db.schema import REVISIONS

#: Any number that no other program locks; "mill" in ASCII.
_ADVISORY_LOCK = 0x6D696C6C


def upgrade(database: Database) -> tuple[str | None, str]:
    """Run the migrations that are missing; the revisions before and after.

    One transaction under a lock: two that start at once run it one after the other, and one
    that is killed leaves the schema as it was. Raises SchemaMismatch for a newer schema.
    """
    before = database.revision()
    if before is not None and before not in REVISIONS:
        raise SchemaMismatch(
            f"the database has schema {before}, newer than this promptmill knows "
            f"({REVISIONS[-1]}): install a newer promptmill"
        )
    with database.write() as connection:
        if database.dialect == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before, REVISIONS[-1]


def alembic_config() -> Config:
    """Alembic's configuration: no file of its own, so that an installed package has it too."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config
