"""Celery: a task and a transaction a prompt, in a pool of two processes."""

from __future__ import annotations

from functools import partial

from benchmarks.queue_sides import storage


def main() -> None:
    jobs = storage.prepare()
    from benchmarks.queue_sides.celery_app import app, store
    from benchmarks.queue_sides.celery_worker import queue, worker

    with worker(app, "celery_app", prefetch=16):
        storage.measured(partial(queue, app, store), jobs)


if __name__ == "__main__":
    main()
