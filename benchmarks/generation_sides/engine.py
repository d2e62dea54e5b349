"""promptmill's engine alone, fed from a list in memory.

SECOND_TEAM=1: in a process where another thread, too, has computed (see `apart.py`).
"""

from __future__ import annotations

import os
import time

import torch

from benchmarks.engines import generate, requests
from benchmarks.generation_sides.common import report, work
from worker.engine.protocol import EngineConfig
from worker.engine.registry import create


def main() -> None:
    asked = work()
    engine = create("transformers", EngineConfig(asked.model, "cpu", asked.dtype))
    engine.start()
    if os.environ.get("SECOND_TEAM") == "1":
        torch.ones(2**20).exp_()
    generate(engine, requests(asked.warm_up, "warm"))
    began = time.perf_counter()
    tokens = generate(engine, requests(asked.tasks, "task"))
    report(tokens, time.perf_counter() - began)
    engine.close()


if __name__ == "__main__":
    main()
