"""vLLM's `LLM.generate` on a CPU, in its own environment; VLLM_EAGER=0 compiles.

Its settings come from outside, as environment variables: see `benchmarks/vllm_settings.py`.
"""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks.generation_sides.common import report, work
from benchmarks.workloads import Task

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main() -> None:
    from vllm import LLM

    asked = work()
    model = LLM(
        asked.model,
        dtype=asked.dtype,
        enforce_eager=os.environ.get("VLLM_EAGER") != "0",
        max_model_len=2048,
        disable_log_stats=True,
    )
    _generate(model, asked.warm_up)
    began = time.perf_counter()
    tokens = _generate(model, asked.tasks)
    report(tokens, time.perf_counter() - began)


def _generate(model: Any, tasks: list[Task]) -> int:
    from vllm import SamplingParams

    answers = model.generate(
        [task.prompt for task in tasks],
        [SamplingParams(temperature=0, ignore_eos=True, max_tokens=t.max_tokens) for t in tasks],
        use_tqdm=False,
    )
    return sum(len(answer.outputs[0].token_ids) for answer in answers)


if __name__ == "__main__":
    main()
