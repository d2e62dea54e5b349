"""A Celery worker of two processes as long as its context lasts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.queue_sides.storage import Row


@contextmanager
def worker(app: Any, module: str, prefetch: int) -> Iterator[None]:
    """Of the application `app` in `benchmarks.queue_sides.MODULE`, ready to work."""
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", f"benchmarks.queue_sides.{module}", "worker",
         "--loglevel=ERROR", "--concurrency=2", f"--prefetch-multiplier={prefetch}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not app.control.ping(timeout=0.2):
            if process.poll() is not None:
                raise SystemExit("the worker did not start")
        yield
    finally:
        process.terminate()
        process.wait()


def queue(app: Any, task: Any, prompts: Sequence[Row]) -> None:
    """A message a prompt, over one connection."""
    with app.producer_or_acquire() as producer:
        for prompt in prompts:
            task.apply_async(prompt, producer=producer)
