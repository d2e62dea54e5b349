"""taskiq: a message and a transaction a prompt, in one process with its usual threads."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from benchmarks.queue_sides import storage


def main() -> None:
    jobs = storage.prepare()
    from benchmarks.queue_sides.taskiq_app import broker, store

    async def put_all(prompts: Sequence[storage.Row]) -> None:
        await broker.startup()
        for prompt in prompts:
            await store.kiq(*prompt)
        await broker.shutdown()

    module = "benchmarks.queue_sides.taskiq_app:broker"
    storage.measure(
        [sys.executable, "-m", "taskiq", "worker", module, "--workers", "1"],
        lambda prompts: asyncio.run(put_all(prompts)),
        jobs,
    )


if __name__ == "__main__":
    main()
