"""arq's settings for its worker: a job a prompt, ten at once in threads, as it usually has."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from arq.connections import RedisSettings

from benchmarks.queue_sides import storage


async def store(_context: Any, key: int, prompt: str) -> None:
    await asyncio.to_thread(storage.store, [(key, prompt)])


class WorkerSettings:
    """What `arq` reads."""

    functions = (store,)
    redis_settings = RedisSettings.from_dsn(os.environ[storage.REDIS])
    keep_result = 0
    poll_delay = 0.05
