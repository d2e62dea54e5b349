"""arq: a job and a transaction a prompt, in one process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from benchmarks.queue_sides import storage


def main() -> None:
    jobs = storage.prepare()
    from arq import create_pool

    from benchmarks.queue_sides.arq_app import WorkerSettings

    async def put_all(prompts: Sequence[storage.Row]) -> None:
        pool = await create_pool(WorkerSettings.redis_settings)
        for prompt in prompts:
            await pool.enqueue_job("store", *prompt)
        await pool.aclose()

    module = "benchmarks.queue_sides.arq_app.WorkerSettings"
    storage.measure(
        [sys.executable, "-m", "arq", module], lambda prompts: asyncio.run(put_all(prompts)), jobs
    )


if __name__ == "__main__":
    main()
