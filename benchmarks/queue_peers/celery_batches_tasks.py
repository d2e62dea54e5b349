"""celery-batches: a message a prompt, a transaction for up to 64 of them."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.queue_peers import storage
from benchmarks.queue_peers.storage import Row


def main() -> None:
    jobs = storage.prepare()
    from benchmarks.queue_peers.celery_app import app, store_batch
    from benchmarks.queue_peers.celery_worker import worker

    def put(prompts: Sequence[Row]) -> None:
        with app.producer_or_acquire() as producer:
            for prompt in prompts:
                store_batch.apply_async(prompt, producer=producer)

    with worker(processes=2, prefetch=128):
        storage.measured(put, jobs)


if __name__ == "__main__":
    main()
