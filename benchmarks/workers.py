"""Workers for a benchmark: local processes, ready before the clock starts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from producer import Client
from producer.local_worker import LocalWorker


@contextmanager
def started(
    client: Client, env: Mapping[str, str], logs: Path, count: int = 1
) -> Iterator[list[LocalWorker]]:
    """`count` workers with the settings of `env`, ready to work.

    Raises EngineError or UsageError with the reason if one of them can't start.
    """
    with ExitStack() as stack:
        workers = [LocalWorker(env, logs / f"worker-{number}.log") for number in range(count)]
        for worker in workers:
            stack.callback(worker.stop, patience=30)
        while len(client.workers()) < count:
            for worker in workers:
                worker.check()
            time.sleep(0.05)
        yield workers
