"""Celery: a task and a transaction a prompt, in a pool of two processes."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.queue_peers import storage
from benchmarks.queue_peers.storage import Row


def main() -> None:
    jobs = storage.prepare()
    from benchmarks.queue_peers.celery_app import app, store
    from benchmarks.queue_peers.celery_worker import worker

    def put(prompts: Sequence[Row]) -> None:
        with app.producer_or_acquire() as producer:
            for prompt in prompts:
                store.apply_async(prompt, producer=producer)

    with worker(processes=2):
        storage.measured(put, jobs)


if __name__ == "__main__":
    main()
