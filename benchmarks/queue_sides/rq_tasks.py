"""RQ: a job and a transaction a prompt, in one process that forks for none (SimpleWorker)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from benchmarks.queue_sides import storage


def store(key: int, prompt: str) -> None:
    storage.store([(key, prompt)])


def main() -> None:
    jobs = storage.prepare()
    from redis import Redis
    from rq import Queue

    url = os.environ[storage.REDIS]
    queue = Queue(connection=Redis.from_url(url))

    def put(prompts: Sequence[storage.Row]) -> None:
        queue.enqueue_many(
            [
                Queue.prepare_data("benchmarks.queue_sides.rq_tasks.store", prompt, result_ttl=0)
                for prompt in prompts
            ]
        )

    command = [
        sys.executable, "-m", "rq.cli", "worker", "--url", url, "--worker-class",
        "rq.worker.SimpleWorker", "--quiet",
    ]  # fmt: skip
    storage.measure(command, put, jobs)


if __name__ == "__main__":
    main()
