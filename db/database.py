"""The one place that knows which database is in use.

    database = Database(settings)
    with database.write() as connection: ...     # one transaction, committed at the end
    with database.read() as connection: ...      # a snapshot, never locks writers

Foreign errors leave here as DatabaseUnavailable or DatabaseError, without a password.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine, Row, create_engine, event, inspect, text
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)

from db.errors import (
    DatabaseError,
    DatabaseRefused,
    DatabaseUnavailable,
    DatabaseUnwritable,
    SettingsError,
    ValueRefused,
)
from db.exact_json import dumps, loads
from db.service_urls import option_names
from db.settings import Settings, redact, variable

AnyRow: TypeAlias = Row[*tuple[Any, ...]]

#: How long a SQLite writer waits for another one (milliseconds).
SQLITE_BUSY_TIMEOUT = 60_000

#: What PostgreSQL calls our sessions.
APPLICATION = "promptmill"

#: A PostgreSQL host that vanishes without a word is noticed within half a minute (libpq's names;
#: seconds, and milliseconds for the last).
_KEEPALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

#: What PostgreSQL calls the longest silence of a session within a transaction (milliseconds).
_SILENCE_LIMIT = "idle_in_transaction_session_timeout"

#: Under this name a connection knows whether a pooler is in between.
_POOLED = "promptmill.pooled"

#: What a wait does not mend: it answers, or its name is known to nobody.
_REFUSED = re.compile(
    r"authentication failed|no password supplied|does not exist|pg_hba|certificate|support SSL|"
    r"not known|could not translate|permission denied|unable to open"
)


class Database:
    """Connections to the database of `settings`; made lazily, shared by threads."""

    def __init__(self, settings: Settings, *, pool_size: int = 5) -> None:
        """Raises SettingsError for a URL that is none."""
        self._settings = settings
        self.url = settings.effective_database_url
        try:
            self.engine = _engine(self.url, pool_size, settings.silence)
        except (ArgumentError, ValueError):  # its words may have a piece of the password
            raise SettingsError(
                f"{variable('database_url')}: is no database URL: in a password, write "
                "@ as %40, : as %3A, / as %2F"
            ) from None
        self._driver: Any = self.engine.dialect.loaded_dbapi

    @property
    def embedded(self) -> bool:
        """Whether it is promptmill's own file, made and upgraded by itself."""
        return self._settings.embedded_database

    @property
    def dialect(self) -> str:
        return self.engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading; whatever it began is rolled back."""
        with self._translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction. On SQLite it takes the write lock at once: no upgrade can deadlock."""
        with self._translated(), self.engine.connect() as connection:
            connection.execution_options(writes=True)
            with connection.begin():
                yield connection

    def revision(self) -> str | None:
        """The schema's revision; None where there is no schema yet."""
        if self.embedded:
            self._make_home()
        with self.read() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()

    def close(self) -> None:
        self.engine.dispose()

    def _make_home(self) -> None:
        try:
            self._settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            # The home may be a folder of other use, open to all; its log files take this mode too.
            if (file := self.engine.url.database) is not None:
                Path(file).touch(mode=0o600, exist_ok=True)
        except OSError as error:
            raise DatabaseRefused(f"can't use database {self.url}: {error}") from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError) as error:
            raise self._translate(error) from error
        except (DataError, IntegrityError) as error:
            raise ValueRefused(f"database {redact(self.url)}: {_cause(error)}") from error
        except SQLAlchemyError as error:
            raise DatabaseError(f"database {redact(self.url)}: {_cause(error)}") from error
        except self._driver.Error as error:
            # COPY and the reading of results talk to the driver without SQLAlchemy in between.
            if isinstance(error, (self._driver.DataError, self._driver.IntegrityError)):
                raise ValueRefused(f"database {redact(self.url)}: {_cause(error)}") from error
            raise self._translate(error) from error

    def _translate(self, error: Exception) -> DatabaseError:
        url, cause = redact(self.url), _cause(error)
        if "disk is full" in cause or "No space left" in cause:
            also = ", or that of temporary files (TMPDIR)" if self.dialect == "sqlite" else ""
            return DatabaseUnwritable(
                f"database {url}: the disk is full{also}: free some space, then go on"
            )
        if "readonly" in cause or "read-only" in cause:
            return DatabaseUnwritable(f"database {url} is read-only: make it writable, then go on")
        where = variable("home" if self.embedded else "database_url")
        kind = DatabaseRefused if _REFUSED.search(cause) else DatabaseUnavailable
        return kind(f"can't use database {url}: {cause}; check {where}")


def _json(value: Any) -> str:
    return dumps(value).decode()


#: How columns of JSON are written and read.
_JSON: dict[str, Any] = {"json_serializer": _json, "json_deserializer": loads}


def _engine(url: str, pool_size: int, silence: float) -> Engine:
    if url.startswith("sqlite"):
        engine = create_engine(
            url,
            connect_args={"timeout": SQLITE_BUSY_TIMEOUT / 1000, "check_same_thread": False},
            **_JSON,
        )
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    ours = {"connect_timeout": 10, "application_name": APPLICATION, **_KEEPALIVE}
    given = option_names(url)
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        connect_args={
            **{name: value for name, value in ours.items() if name not in given},
            # A pooler such as pgbouncer may give each transaction another session of the server,
            # which has not prepared the statement, or another one under its name.
            "prepare_threshold": None,
        },
        **_JSON,
    )
    # The locks of a host that froze or lost power would else hold everybody up for hours.
    # Well within a lease: a heartbeat that waits for them must not lose its own.
    # Where PostgreSQL does not count the silence, `db.queries.sessions` does.
    milliseconds = round(silence * 1000)

    @event.listens_for(engine, "connect")
    def bound_silence(connection: Any, record: Any) -> None:
        connection.autocommit = True
        (process,) = connection.execute("SELECT pg_backend_pid()").fetchone()
        # A pooler has told us of a process of its own.
        record.info[_POOLED] = process != connection.info.backend_pid
        if not record.info[_POOLED]:
            connection.execute(f"SET {_SILENCE_LIMIT} = {milliseconds}")
        connection.autocommit = False

    @event.listens_for(engine, "begin")
    def bound_silence_of_one(connection: Connection) -> None:
        # What is set for a session of the server's would stay there, for whoever gets it next.
        if connection.info.get(_POOLED):
            connection.exec_driver_sql(f"SET LOCAL {_SILENCE_LIMIT} = {milliseconds}")

    return engine


def is_pooled(connection: Connection) -> bool:
    """Whether a pooler, such as pgbouncer, stands between us and PostgreSQL."""
    return bool(connection.info.get(_POOLED))


def allow_silence(connection: Connection) -> None:
    """For a transaction that only reads, and whose reader may take its time."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL {_SILENCE_LIMIT} = 0")


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # SQLAlchemy sends BEGIN itself, below; the driver's own guesses would get in its way.
    connection.isolation_level = None
    _use_wal(connection)
    for pragma in (
        "synchronous=NORMAL",
        f"busy_timeout={SQLITE_BUSY_TIMEOUT}",
        "foreign_keys=ON",
        "temp_store=FILE",
        "cache_size=-16000",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _use_wal(connection: Any) -> None:
    """For this one change SQLite does not wait for others, whatever its timeout: so we do."""
    deadline = time.monotonic() + SQLITE_BUSY_TIMEOUT / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= deadline:
                raise
        time.sleep(0.05)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _cause(error: Exception) -> str:
    cause: BaseException = error
    if isinstance(error, DBAPIError) and error.orig is not None:
        cause = error.orig
    return " ".join(str(cause).split()) or type(cause).__name__
