"""An engine alone, fed from a list in memory."""

from __future__ import annotations

from collections.abc import Sequence
from queue import Queue

from benchmarks.workloads import Task
from db.sampling import SamplingParams
from worker.engine.protocol import Completed, Engine, Outcome, Request


def requests(tasks: Sequence[Task], name: str) -> list[Request]:
    """Greedy, and of exactly `max_tokens` tokens; `name` sets their ids apart."""
    return [
        Request(
            f"{name}-{number}",
            SamplingParams(max_tokens=task.max_tokens, temperature=0, ignore_eos=True),
            seed=0,
            prompt=task.prompt,
        )
        for number, task in enumerate(tasks)
    ]


def generate(engine: Engine, given: Sequence[Request]) -> int:
    """Wait until the last of them is answered; how many tokens they have."""
    answers: Queue[Outcome] = Queue()
    for request in given:
        engine.submit(request, lambda _, outcome: answers.put(outcome))
    count = 0
    for _ in given:
        outcome = answers.get()
        assert isinstance(outcome, Completed), outcome
        count += sum(sample.completion_tokens for sample in outcome.samples)
    return count
