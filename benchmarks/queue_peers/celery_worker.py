"""A Celery worker of several processes as long as its context lasts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def worker(processes: int, prefetch: int = 16) -> Iterator[None]:
    """Ready to work."""
    from benchmarks.queue_peers.celery_app import app

    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "benchmarks.queue_peers.celery_app", "worker",
         "--loglevel=ERROR", f"--concurrency={processes}", f"--prefetch-multiplier={prefetch}"],
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
