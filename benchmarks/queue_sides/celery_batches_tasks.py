"""celery-batches: a message a prompt, a transaction for up to 64 of them."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.queue_sides import storage


def main() -> None:
    jobs = storage.prepare()
    from benchmarks.queue_sides.celery_app import app, command
    from benchmarks.queue_sides.celery_batches_app import store_batch

    def put(prompts: Sequence[storage.Row]) -> None:
        with app.producer_or_acquire() as producer:
            for prompt in prompts:
                store_batch.apply_async(prompt, producer=producer)

    storage.measure(command("celery_batches_app", processes=1, prefetch=128), put, jobs)


if __name__ == "__main__":
    main()
