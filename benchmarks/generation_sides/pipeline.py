"""transformers' text-generation pipeline: static batches in order of arrival.

Its batches have one length for all, so each runs to its longest; only what was asked for counts.
The size of a batch is the variable PIPELINE_BATCH.
"""

from __future__ import annotations

import os
import time
from typing import Any

import torch
import transformers

from benchmarks.generation_sides.common import report, work
from benchmarks.workloads import Task

SIZE = int(os.environ.get("PIPELINE_BATCH", "16"))


def main() -> None:
    asked = work()
    pipeline: Any = transformers.pipeline(
        "text-generation", model=asked.model, dtype=getattr(torch, asked.dtype), device="cpu"
    )
    pipeline.tokenizer.padding_side = "left"
    _generate(pipeline, asked.warm_up)
    began = time.perf_counter()
    tokens = _generate(pipeline, asked.tasks)
    report(tokens, time.perf_counter() - began)


def _generate(pipeline: Any, tasks: list[Task]) -> int:
    for place in range(0, len(tasks), SIZE):
        batch = tasks[place : place + SIZE]
        longest = max(task.max_tokens for task in batch)
        pipeline(
            [task.prompt for task in batch],
            batch_size=SIZE,
            do_sample=False,
            min_new_tokens=longest,
            max_new_tokens=longest,
            return_full_text=False,
        )
    return sum(task.max_tokens for task in tasks)


if __name__ == "__main__":
    main()
