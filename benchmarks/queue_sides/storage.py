"""Where peers store their results: one table, through SQLAlchemy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    func,
    insert,
    select,
)

#: Seconds for all results to come.
_PATIENCE = 120

DATABASE, REDIS = "PEER_DATABASE", "PEER_REDIS"

_metadata = MetaData()
_results = Table(
    "peer_results", _metadata, Column("id", Integer, primary_key=True), Column("text", Text)
)

Row = tuple[int, str]


@cache
def engine() -> Engine:
    """One engine a process, on the database that the environment names."""
    made = create_engine(os.environ[DATABASE], connect_args=_options(os.environ[DATABASE]))
    if made.dialect.name == "sqlite":
        event.listen(made, "connect", _configure)
    return made


def store(rows: Sequence[Row]) -> None:
    """Store results in one transaction."""
    with engine().begin() as connection:
        connection.execute(insert(_results), [{"id": key, "text": text} for key, text in rows])


def measure(command: Sequence[str], put: Callable[[Sequence[Row]], None], jobs: int) -> None:
    """Queue prompts with `put` for the worker that `command` starts, wait for their results, and
    print the time that it took. The worker is warm: it has done one prompt before.
    """
    prompts = [(number, f"prompt number {number} of {jobs}") for number in range(1, jobs + 1)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        put([(0, "the first one")])
        _await(1, process)
        began = time.perf_counter()
        put(prompts)
        _await(jobs + 1, process)
        print(json.dumps({"jobs": jobs, "seconds": time.perf_counter() - began}), flush=True)
    finally:
        process.terminate()
        process.wait()


def _await(count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while _stored() < count:
        if process.poll() is not None:
            raise SystemExit("the worker has ended")
        if time.monotonic() > deadline:
            raise SystemExit(f"after {_PATIENCE} s not all results are there")
        time.sleep(0.01)


def prepare() -> int:
    """Take the command line into the environment and make the table; how many jobs to run."""
    os.environ[DATABASE], os.environ[REDIS], jobs = sys.argv[1:4]
    _metadata.drop_all(engine())
    _metadata.create_all(engine())
    engine().dispose()
    return int(jobs)


def _stored() -> int:
    with engine().connect() as connection:
        return int(connection.execute(select(func.count()).select_from(_results)).scalar_one())


def _options(url: str) -> dict[str, float]:
    return {"timeout": 60.0} if url.startswith("sqlite") else {}


def _configure(connection: Any, _record: object) -> None:
    """As promptmill's own."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
