"""promptmill whole: from `submit` to the last result in the database (SQLite), by one worker."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.generation_sides.common import report, work
from benchmarks.workers import started
from benchmarks.workloads import Task
from db.settings import Settings
from producer import Client


def main() -> None:
    asked = work()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        env = {
            "PROMPTMILL_HOME": folder,
            "PROMPTMILL_MODEL": asked.model,
            "PROMPTMILL_DTYPE": asked.dtype,
            "PROMPTMILL_DEVICE": "cpu",
        }
        with Client(Settings(home=home)) as client, started(client, env, home / "logs"):
            _generate(client, asked.model, asked.warm_up)
            began = time.perf_counter()
            tokens = _generate(client, asked.model, asked.tasks)
            report(tokens, time.perf_counter() - began)


def _generate(client: Client, model: str, tasks: list[Task]) -> int:
    batch = client.submit((task.line(n) for n, task in enumerate(tasks, 1)), model=model)
    done = client.wait(batch.id, poll=0.2)
    assert done.succeeded == len(tasks), done
    return done.completion_tokens


if __name__ == "__main__":
    main()
