"""Celery: a message, a task and a transaction a prompt. PROCESSES says how many work."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.queue_sides import storage


def main() -> None:
    jobs = storage.prepare()
    from benchmarks.queue_sides.celery_app import app, command, store

    def put(prompts: Sequence[storage.Row]) -> None:
        with app.producer_or_acquire() as producer:
            for prompt in prompts:
                store.apply_async(prompt, producer=producer)

    storage.measure(command("celery_app", processes=int(sys.argv[4]), prefetch=16), put, jobs)


if __name__ == "__main__":
    main()
