"""Rows changed behind promptmill's back, foreign keys or not, as a bug or a stranger would."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing

from sqlalchemy import make_url, text

from db.database import Database


def by_hand(database: Database, statements: str, values: Mapping[str, int] | None = None) -> None:
    """Run these statements, one a `;`, with `:name` for the values; no key is checked."""
    each = [one for one in statements.split(";") if one.strip()]
    if database.dialect == "sqlite":
        # The driver alone: Database switches the check of foreign keys on.
        with closing(sqlite3.connect(str(make_url(database.url).database))) as connection:
            for one in each:
                connection.execute(one, dict(values or {}))
            connection.commit()
        return
    with database.write() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for one in each:
            statement = text(one)
            used = statement.compile().params
            connection.execute(statement, {k: v for k, v in (values or {}).items() if k in used})
