"""A mill around the echo engine in this process, and databases that go away on command."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, update

from db.database import Database
from db.errors import DatabaseUnavailable
from db.queries import chunks, jobs
from db.records import Batch, Job
from db.schema import chunks as chunk_table
from db.settings import Settings
from tests.support.stored import MODEL, QUEUE, a_worker
from worker.engine.echo import EchoEngine
from worker.engine.protocol import Engine, EngineConfig
from worker.mill import Mill
from worker.run import Ending


class FaultyDatabase(Database):
    """A database that can be sent away, and whose transactions can be held up."""

    def __init__(self, url: str) -> None:
        super().__init__(Settings(database_url=url), pool_size=10)
        self.away = threading.Event()
        #: Transactions that found it away.
        self.refused = 0
        #: Called at the end of each transaction, before its commit.
        self.before_commit: Callable[[], None] = lambda: None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        if self.away.is_set():
            self.refused += 1
            raise DatabaseUnavailable("the database is away")
        with super().write() as connection:
            yield connection
            self.before_commit()


def echo(**options: str) -> EchoEngine:
    return EchoEngine(EngineConfig(MODEL, options=options))


@contextmanager
def a_mill(
    database: Database,
    engine: Engine | None = None,
    *,
    max_attempts: int = 3,
    flush_interval: float = 0.02,
    lease: float = 600.0,
    only: int | None = None,
    name: str = "echo",
) -> Iterator[Mill]:
    """A mill that works, with a registered worker; stopped at the end, whatever it still holds.

    `name` is the engine's.
    """
    config = Settings().with_(
        model=MODEL,
        engine=name,
        max_attempts=max_attempts,
        flush_interval=flush_interval,
        lease=lease,
    )
    made = engine or echo()
    made.start()
    mill = Mill(config, database, made, worker=a_worker(database), queue=QUEUE, only=only)
    mill.flusher.start()
    try:
        yield mill
    finally:
        mill.drain(0)
        mill.flusher.stop(5)
        mill.abandon()
        made.close()


class Slot:
    """A thread that works on one chunk, as a Celery slot does."""

    def __init__(self, mill: Mill, chunk: int, name: str | None = None) -> None:
        self._ending: Ending | None = None
        self._thread = threading.Thread(
            target=self._run, args=(mill, chunk), name=name, daemon=True
        )
        self._thread.start()

    def _run(self, mill: Mill, chunk: int) -> None:
        self._ending = mill.work_on(chunk)

    @property
    def working(self) -> bool:
        return self._thread.is_alive()

    def ended(self, timeout: float = 30.0) -> Ending | None:
        """How it ended; fails the test if it has not by then."""
        self._thread.join(timeout)
        assert not self.working, f"the slot still works after {timeout:g} s"
        return self._ending


def messages(database: Database) -> list[int]:
    """The chunks that ring."""
    with database.write() as connection:
        return [chunk for chunk, _, _ in chunks.take_unsent(connection, 10_000)]


def job_now(database: Database, batch: Batch, line: int) -> Job:
    with database.read() as connection:
        return jobs.get_job(connection, batch.id, line)


def due(database: Database) -> None:
    """Let the time until the next attempt be over."""
    with database.write() as connection:
        connection.execute(update(chunk_table).values(not_before=0.0))
