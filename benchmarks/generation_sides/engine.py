"""promptmill's engine alone, fed from a list in memory."""

from __future__ import annotations

import time

from benchmarks.engines import generate, requests
from benchmarks.generation_sides.common import report, work
from worker.engine.protocol import EngineConfig
from worker.engine.registry import create


def main() -> None:
    asked = work()
    engine = create("transformers", EngineConfig(asked.model, "cpu", asked.dtype))
    engine.start()
    generate(engine, requests(asked.warm_up, "warm"))
    began = time.perf_counter()
    tokens = generate(engine, requests(asked.tasks, "task"))
    report(tokens, time.perf_counter() - began)
    engine.close()


if __name__ == "__main__":
    main()
