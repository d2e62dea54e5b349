"""What the chaos run breaks: PostgreSQL, Redis and supervised workers of its own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
from sqlalchemy import select

from db.database import Database
from db.errors import DatabaseError
from db.migrate import upgrade
from db.schema import chunks, workers
from db.settings import Settings
from db.states import ChunkState
from producer import Client
from tests.support.processes import environment
from tests.support.servers import PrivatePostgres, PrivateRedis

MODEL = "chaos/echo"
#: Seconds: how long a silent worker keeps its chunks here. The default is 30.
LEASE = 3.0


class Site:
    """One installation with its supervised workers."""

    def __init__(self, folder: Path, postgres: PrivatePostgres, redis: PrivateRedis) -> None:
        self.postgres = postgres
        self.redis = redis
        self._folder = folder
        self._supervisors: list[subprocess.Popen[bytes]] = []
        self.settings = Settings(
            home=folder / "home",
            database_url=postgres.url,
            broker_url=redis.url,
            model=MODEL,
            lease=LEASE,
            recovery_interval=0.5,
        )
        self.database = Database(self.settings)
        upgrade(self.database)
        self.client = Client(self.settings)

    def start_workers(self, count: int, *, latency: float, capacity: int) -> None:
        """Each under its own supervisor, as `promptmill worker` starts it."""
        env = {
            "PROMPTMILL_HOME": str(self.settings.home),
            "PROMPTMILL_DATABASE_URL": self.postgres.url,
            "PROMPTMILL_BROKER_URL": self.redis.url,
            "PROMPTMILL_MODEL": MODEL,
            "PROMPTMILL_ENGINE": "echo",
            "PROMPTMILL_ENGINE_OPTIONS": json.dumps(
                {"latency": str(latency), "capacity": str(capacity)}
            ),
            "PROMPTMILL_LEASE": str(LEASE),
            "PROMPTMILL_RECOVERY_INTERVAL": "0.5",
            # Loss by chance is what is tested, not a prompt that breaks its worker.
            "PROMPTMILL_MAX_ATTEMPTS": "100",
        }
        for number in range(count):
            with (self._folder / f"worker-{number}.log").open("wb") as log:
                self._supervisors.append(
                    subprocess.Popen(
                        [sys.executable, "-P", "-m", "worker", "--keep"],
                        env=environment(env),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )

    def worker_processes(self) -> list[psutil.Process]:
        """Those that live now, in the order of their supervisors."""
        found: list[psutil.Process] = []
        for supervisor in self._supervisors:
            with suppress(psutil.Error):
                found += psutil.Process(supervisor.pid).children()
        return found

    def a_worker(self, chance: random.Random) -> psutil.Process | None:
        living = self.worker_processes()
        return chance.choice(living) if living else None

    def chunks_of(self, pids: list[int]) -> set[int]:
        """The chunks that these processes hold now."""
        query = (
            select(chunks.c.id)
            .join(workers, workers.c.id == chunks.c.worker_id)
            .where(chunks.c.state == ChunkState.RUNNING, workers.c.pid.in_(pids))
        )
        with self.database.read() as connection:
            return set(connection.execute(query).scalars())

    def holds(self, held: set[int], pids: list[int]) -> bool:
        """Whether these processes still hold some of these chunks, as far as can be seen."""
        try:
            return bool(held & self.chunks_of(pids))
        except DatabaseError:
            return True

    def done(self, batch: str) -> int | None:
        """Jobs of the batch that have ended; None where the database does not answer."""
        try:
            return self.client.batch(batch).done
        except DatabaseError:
            return None

    def stop(self) -> None:
        for process in self.worker_processes():
            with suppress(psutil.Error):
                process.resume()
        for supervisor in self._supervisors:
            supervisor.terminate()
        deadline = time.monotonic() + 20
        for supervisor in self._supervisors:
            try:
                supervisor.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                # Its worker leaves with it: it holds the other end of a pipe.
                os.kill(supervisor.pid, 9)
                supervisor.wait()
        self.client.close()
        self.database.close()


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Everything started, and stopped at the end."""
    with ExitStack() as stack:
        postgres = stack.enter_context(PrivatePostgres())
        redis = stack.enter_context(PrivateRedis(folder / "redis"))
        made = Site(folder, postgres, redis)
        stack.callback(made.stop)
        yield made
