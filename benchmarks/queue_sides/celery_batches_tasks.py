"""celery-batches: a message a prompt, a transaction for up to 64 of them."""

from __future__ import annotations

from functools import partial

from benchmarks.queue_sides import storage


def main() -> None:
    jobs = storage.prepare()
    from benchmarks.queue_sides.celery_app import app
    from benchmarks.queue_sides.celery_batches_app import store_batch
    from benchmarks.queue_sides.celery_worker import queue, worker

    with worker(app, "celery_batches_app", prefetch=128):
        storage.measured(partial(queue, app, store_batch), jobs)


if __name__ == "__main__":
    main()
