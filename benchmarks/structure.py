"""What does structured output cost, a token?

    python benchmarks/structure.py
    python benchmarks/structure.py --model models/gemma3-270m --prompts 64 --tokens 64

One engine, fed from a list: the same prompts without a structure, under a JSON schema, a regular
expression and a choice that is long enough never to end before the token limit. So all sides make
the same number of tokens.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.engines import generate
from benchmarks.report import Report, forget_settings
from benchmarks.workloads import mixed
from db.sampling import SamplingParams
from worker.engine.protocol import Engine, EngineConfig, Request
from worker.engine.registry import create

_PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "trade": {"enum": ["miller", "baker", "farmer"]},
        "emails": {"type": "array", "items": {"type": "string", "format": "email"}},
    },
    "required": ["name", "age", "trade", "emails"],
    "additionalProperties": False,
}
_PEOPLE = {"type": "array", "items": _PERSON, "minItems": 1000}

SIDES: dict[str, dict[str, Any]] = {
    "no structure": {},
    "JSON schema": {"response_format": {"type": "json_schema", "json_schema": {"schema": _PEOPLE}}},
    "regular expression": {"regex": r"([A-Z][a-z]{2,12}( [a-z]{1,12}){3,20}\. ){1000}"},
    "grammar": {"grammar": 'root ::= ("yes, " | "no, " | "perhaps, ")+ "."'},
}


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0])
@click.option("--model", default="models/gemma3-270m", show_default=True, help="A folder.")
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option("--prompts", default=64, show_default=True)
@click.option("--tokens", default=48, show_default=True, help="New tokens of each prompt.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where JSON goes.")
def main(
    model: str, dtype: str, prompts: int, tokens: int, rounds: int, seed: int, path: Path | None
) -> None:
    forget_settings()
    report = Report(
        "structure",
        "What does structured output cost?",
        setup={"model": Path(model).name, "dtype": dtype, "prompts": prompts, "tokens": tokens},
        packages=("llguidance", "torch", "transformers"),
    )
    engine = create("transformers", EngineConfig(model, dtype=dtype))
    engine.start()
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    try:
        for number in range(-1, rounds):  # the first one warms up
            for side in SIDES:
                spent = _measured(engine, side, prompts, tokens, seed, f"{number}")
                if number >= 0:
                    seconds[side].append(spent)
    finally:
        engine.close()
    free = min(seconds["no structure"])
    for side, all_rounds in seconds.items():
        report.row(
            side=side,
            tokens_per_second=prompts * tokens / min(all_rounds),
            median_seconds=median(all_rounds),
            of_no_structure=free / min(all_rounds),
            more_microseconds_a_token=(min(all_rounds) - free) / (prompts * tokens) * 1e6,
        )
    report.finish(path)


def _measured(engine: Engine, side: str, prompts: int, tokens: int, seed: int, name: str) -> float:
    """Seconds until all prompts have their tokens."""
    params = SamplingParams(
        max_tokens=tokens, temperature=1.0, ignore_eos=not SIDES[side], **SIDES[side]
    )
    given = [
        Request(f"{side}-{name}-{place}", params, seed=place, prompt=task.prompt[:200])
        for place, task in enumerate(mixed(prompts, seed))
    ]
    began = time.perf_counter()
    generate(engine, given)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
