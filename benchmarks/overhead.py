"""How much slower is the whole path than its engine alone, fed from a list in memory?

    python benchmarks/overhead.py
    python benchmarks/overhead.py --prompts 256 --rounds 3

The same prompts and weights as in `generation.py`, in turn, each in a process of its own. The
fastest rounds are compared: other users of the machine only make a round slower. The engine is
measured a second time in a process where another thread has computed too, as loading once did.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.generation import Side
from benchmarks.report import Report, forget_settings


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0])
@click.option("--model", default="models/gemma3-270m", show_default=True, help="A folder.")
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option("--prompts", default=64, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where JSON goes.")
def main(model: str, dtype: str, prompts: int, rounds: int, seed: int, path: Path | None) -> None:
    forget_settings()
    report = Report(
        "overhead",
        "How much slower is the whole path than its engine alone?",
        setup={"model": Path(model).name, "dtype": dtype, "prompts": prompts, "seed": seed},
    )
    python = Path(sys.executable)
    whole, alone = Side("promptmill", "whole", python), Side("engine alone", "engine", python)
    hampered = Side("beside a second OpenMP team", "engine", python, {"SECOND_TEAM": "1"})
    work = (str(Path(model).resolve()), dtype, str(prompts), str(seed))
    for number in range(rounds):
        for side in (whole, alone, hampered):
            click.echo(f"round {number + 1}: {side.name}", err=True)
            side.run(*work)
    for side in (whole, alone, hampered):
        report.row(
            side=side.name,
            tokens=side.tokens,
            seconds=min(side.seconds),
            median_seconds=median(side.seconds),
            tokens_per_second=side.best,
            of_the_engine=side.best / alone.best,
        )
    report.finish(path)


if __name__ == "__main__":
    main()
