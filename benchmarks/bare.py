"""The barest way to put a batch's rows into a database and to get them out: the driver alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import psycopg
from sqlalchemy.engine import make_url

#: What a job must have in its table.
Row = tuple[int, int, str, str, str]

_COLUMNS = "batch_id, line, custom_id, state, request"

#: What an export needs of a job and its sample.
_SELECT = """
    SELECT jobs.line, custom_id, state, attempts, prompt_tokens, started_at, finished_at,
        error_code, error_message, sample, text, finish_reason, results.completion_tokens,
        logprobs, worker_id
    FROM jobs JOIN results ON results.batch_id = jobs.batch_id AND results.line = jobs.line
"""
#: Rows fetched at once.
_FETCH = 10_000


def insert(url: str, rows: Iterable[Row]) -> None:
    """One transaction: COPY on PostgreSQL, executemany on SQLite."""
    if url.startswith("sqlite"):
        with _sqlite(url) as connection:
            connection.executemany(f"INSERT INTO jobs ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)", rows)
        return
    with (
        psycopg.connect(_dsn(url)) as server,
        server.cursor() as cursor,
        cursor.copy(f"COPY jobs ({_COLUMNS}) FROM STDIN") as copy,
    ):
        for row in rows:
            copy.write_row(row)


def select(url: str) -> int:
    """Fetch every sample with its job, as they lie; how many."""
    if url.startswith("sqlite"):
        with _sqlite(url) as connection:
            found = connection.execute(_SELECT)
            return _count(iter(lambda: found.fetchmany(_FETCH), []))
    with psycopg.connect(_dsn(url)) as server, server.cursor("bare") as cursor:
        cursor.execute(_SELECT)
        return _count(iter(lambda: cursor.fetchmany(_FETCH), []))


def execute(url: str, *statements: str) -> None:
    """Each in a transaction of its own."""
    if url.startswith("sqlite"):
        with _sqlite(url) as connection:
            for statement in statements:
                connection.execute(statement)
        return
    with psycopg.connect(_dsn(url), autocommit=True) as server:
        for statement in statements:
            server.execute(statement.encode())


def _count(pages: Iterable[list[tuple[object, ...]]]) -> int:
    return sum(map(len, pages))


def _sqlite(url: str) -> sqlite3.Connection:
    connection = sqlite3.connect(str(make_url(url).database))
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _dsn(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
