"""What the sides share; it needs nothing but the standard library."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from benchmarks.workloads import Task, mixed


@dataclass(frozen=True)
class Work:
    """What a side is asked for."""

    model: str
    dtype: str
    tasks: list[Task]

    @property
    def warm_up(self) -> list[Task]:
        """A few short ones of another seed."""
        return [Task(task.prompt, 8) for task in mixed(4, seed=99)]


def work() -> Work:
    """Read it from the command line."""
    model, dtype, count, seed = sys.argv[1:]
    return Work(model, dtype, mixed(int(count), int(seed)))


def report(tokens: int, seconds: float) -> None:
    """Print the measurement, the last line of a side's output."""
    print(json.dumps({"tokens": tokens, "seconds": seconds}), flush=True)
