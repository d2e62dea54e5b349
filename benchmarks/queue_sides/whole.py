"""promptmill: `submit` and one worker with the `echo` engine, which takes no time.

python -m benchmarks.queue_sides.whole DATABASE_URL REDIS_URL JOBS [CHUNK_SIZE]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.places import Place
from benchmarks.workers import started
from benchmarks.workloads import lines
from producer import Client

_MODEL = "bench/echo"


def main() -> None:
    database, broker, jobs, *more = sys.argv[1:]
    chunk_size = int(more[0]) if more else None
    with tempfile.TemporaryDirectory() as folder:
        where = Place(Path(folder), database, broker)
        where.prepare().close()
        settings = where.settings.model_copy(update={"chunk_size": chunk_size})
        env = {**where.env, "PROMPTMILL_MODEL": _MODEL, "PROMPTMILL_ENGINE": "echo"}
        with Client(settings) as client, started(client, env, where.folder / "logs"):
            _measure(client, int(jobs))


def _measure(client: Client, jobs: int) -> None:
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


if __name__ == "__main__":
    main()
