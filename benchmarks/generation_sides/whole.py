"""promptmill whole: from `submit` to the last result in the database (SQLite), by one worker."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.generation_sides.common import Work, report, work
from benchmarks.workloads import Task
from db.settings import Settings
from producer import Client
from producer.local_worker import LocalWorker


def main() -> None:
    asked = work()
    with (
        tempfile.TemporaryDirectory() as folder,
        _worker(asked, Path(folder)),
        Client(Settings(home=Path(folder))) as client,
    ):
        _generate(client, asked.model, asked.warm_up)
        began = time.perf_counter()
        tokens = _generate(client, asked.model, asked.tasks)
        report(tokens, time.perf_counter() - began)


def _generate(client: Client, model: str, tasks: list[Task]) -> int:
    batch = client.submit((task.line(n) for n, task in enumerate(tasks, 1)), model=model)
    done = client.wait(batch.id, poll=0.05)
    assert done.succeeded == len(tasks), done
    return done.completion_tokens


@contextmanager
def _worker(asked: Work, home: Path) -> Iterator[None]:
    """A worker with this model."""
    settings = {
        "PROMPTMILL_HOME": str(home),
        "PROMPTMILL_MODEL": asked.model,
        "PROMPTMILL_DTYPE": asked.dtype,
        "PROMPTMILL_DEVICE": "cpu",
    }
    worker = LocalWorker(settings, home / "logs" / "worker.log")
    try:
        yield
    finally:
        worker.stop(patience=30)


if __name__ == "__main__":
    main()
