"""Dramatiq: a message and a transaction a prompt, in one process with its usual eight threads."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.queue_sides import storage


def main() -> None:
    jobs = storage.prepare()
    from benchmarks.queue_sides.dramatiq_app import store

    def put(prompts: Sequence[storage.Row]) -> None:
        for prompt in prompts:
            store.send(*prompt)

    module = "benchmarks.queue_sides.dramatiq_app"
    storage.measure(
        [sys.executable, "-m", "dramatiq", module, "--processes", "1", "--path", "."], put, jobs
    )


if __name__ == "__main__":
    main()
