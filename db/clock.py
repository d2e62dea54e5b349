"""The database's clock, in unix seconds.

Leases and deadlines are compared in the database's time, so that a worker whose own clock is an
hour off neither loses its chunks nor keeps them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

#: The same as text, for statements that are written as such.
POSTGRESQL_NOW = "extract(epoch from clock_timestamp())::float8"
# Julian days: SQLite before 3.42 has no sub-second unixepoch().
SQLITE_NOW = "((julianday('now') - 2440587.5) * 86400.0)"


class db_now(FunctionElement[float]):  # noqa: N801 - reads as a SQL function
    """`db_now()` in a statement: the moment of execution, not of the transaction's start."""

    type = Double()
    inherit_cache = True


@compiles(db_now, "postgresql")
def _postgresql(_element: db_now, _compiler: Any, **_options: Any) -> str:
    return POSTGRESQL_NOW


@compiles(db_now, "sqlite")
def _sqlite(_element: db_now, _compiler: Any, **_options: Any) -> str:
    return SQLITE_NOW
