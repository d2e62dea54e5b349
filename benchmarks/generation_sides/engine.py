"""promptmill's engine alone, fed from a list in memory."""

from __future__ import annotations

import time
from queue import Queue

from benchmarks.generation_sides.common import report, work
from benchmarks.workloads import Task
from db.sampling import SamplingParams
from worker.engine.protocol import Completed, Engine, EngineConfig, Outcome, Request
from worker.engine.registry import create


def main() -> None:
    asked = work()
    engine = create("transformers", EngineConfig(asked.model, "cpu", asked.dtype))
    engine.start()
    _generate(engine, asked.warm_up, "warm")
    began = time.perf_counter()
    tokens = _generate(engine, asked.tasks, "task")
    report(tokens, time.perf_counter() - began)
    engine.close()


def _generate(engine: Engine, tasks: list[Task], name: str) -> int:
    answers: Queue[Outcome] = Queue()
    for number, task in enumerate(tasks):
        params = SamplingParams(max_tokens=task.max_tokens, temperature=0, ignore_eos=True)
        request = Request(f"{name}-{number}", params, seed=0, prompt=task.prompt)
        engine.submit(request, lambda _, outcome: answers.put(outcome))
    count = 0
    for _ in tasks:
        outcome = answers.get()
        assert isinstance(outcome, Completed), outcome
        count += sum(sample.completion_tokens for sample in outcome.samples)
    return count


if __name__ == "__main__":
    main()
