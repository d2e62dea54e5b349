"""promptmill: `submit` and one worker with the `echo` engine, which takes no time.

python -m benchmarks.queue_sides.whole DATABASE_URL REDIS_URL JOBS [CHUNK_SIZE]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.workloads import lines
from db.database import Database
from db.migrate import upgrade
from db.settings import Settings
from producer import Client
from producer.local_worker import LocalWorker

_MODEL = "bench/echo"


def main() -> None:
    database, broker, jobs, *more = sys.argv[1:]
    chunk_size = int(more[0]) if more else 64
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            home=Path(folder), database_url=database, broker_url=broker, chunk_size=chunk_size
        )
        prepared = Database(settings)
        upgrade(prepared)
        prepared.close()
        with _worker(settings), Client(settings) as client:
            _measure(client, int(jobs))


def _measure(client: Client, jobs: int) -> None:
    while not client.workers():
        time.sleep(0.05)
    began = time.perf_counter()
    batch = client.submit(lines(jobs), model=_MODEL)
    submitted = time.perf_counter() - began
    done = client.wait(batch.id, poll=0.02)
    seconds = time.perf_counter() - began
    assert done.succeeded == jobs, done
    assert done.started_at is not None
    assert done.finished_at is not None
    found = {
        "jobs": jobs,
        "seconds": seconds,
        "submit": submitted,
        "worker": done.finished_at - done.started_at,
    }
    print(json.dumps(found), flush=True)


@contextmanager
def _worker(settings: Settings) -> Iterator[None]:
    env = {
        "PROMPTMILL_HOME": str(settings.home),
        "PROMPTMILL_DATABASE_URL": str(settings.database_url),
        "PROMPTMILL_BROKER_URL": str(settings.broker_url),
        "PROMPTMILL_MODEL": _MODEL,
        "PROMPTMILL_ENGINE": "echo",
    }
    worker = LocalWorker(env, settings.home / "logs" / "worker.log")
    try:
        yield
    finally:
        worker.stop(patience=30)


if __name__ == "__main__":
    main()
