"""Is it worth it to give the engine long jobs first, and prompts that begin alike together?

    python benchmarks/prefix.py
    python benchmarks/prefix.py --prompts 64 --rounds 1

A chunk of jobs in the order of its lines, and in the order that should suit the engine best, to one
engine that runs 16 at once. promptmill gives a chunk in the order of its lines: this is what says
whether that should change. The model is a small GPT-2 of random weights: all of its layers have
full attention, as prefixes are shared only then.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.engines import generate, requests
from benchmarks.report import Report, forget_settings
from benchmarks.workloads import Task, heavy_tail, shared_prefix
from tests.support.tiny_models import build_gpt2
from worker.engine.protocol import Engine, EngineConfig, Request
from worker.engine.registry import create

#: Of a system prompt.
_WORDS = 200


def ordered(given: list[Request]) -> list[Request]:
    """The longest first (Graham, 1969), and among those of one length by how they begin."""
    return sorted(given, key=lambda one: (-one.params.token_limit(0, None), one.prompt or ""))


def seconds(engine: Engine, given: list[Request]) -> float:
    """Until the last of them is answered."""
    began = time.perf_counter()
    generate(engine, given)
    return time.perf_counter() - began


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0])
@click.option("--prompts", default=192, show_default=True, help="Of a chunk.")
@click.option("--at-once", default=16, show_default=True, help="That the engine runs.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where JSON goes.")
def main(prompts: int, at_once: int, rounds: int, path: Path | None) -> None:
    forget_settings()
    report = Report(
        "prefix",
        "What is the order of admission worth?",
        setup={"prompts": prompts, "at_once": at_once, "rounds": rounds},
    )
    works = {
        "a heavy tail of lengths": heavy_tail(prompts),
        "4 shared system prompts": shared_prefix(prompts, length=_WORDS),
    }
    with tempfile.TemporaryDirectory() as folder:
        model = build_gpt2(Path(folder) / "gpt2", width=384, layers=6, context_length=2048)
        config = EngineConfig(str(model), "cpu", "float32", max_concurrency=at_once)
        for work, tasks in works.items():
            _compare(report, config, work, tasks, rounds)
    report.finish(path)


def _compare(
    report: Report, config: EngineConfig, work: str, tasks: list[Task], rounds: int
) -> None:
    taken: dict[str, list[float]] = {"as they come": [], "ordered": []}
    for number in range(rounds):
        for order, found in taken.items():
            click.echo(f"{work}: {order}, round {number + 1}", err=True)
            # A new engine each time: nothing that it remembers helps the next one.
            engine = create("transformers", config)
            engine.start()
            seconds(engine, requests(heavy_tail(2, seed=9), "warm"))
            given = requests(tasks, f"{order}-{number}")
            found.append(seconds(engine, ordered(given) if order == "ordered" else given))
            engine.close()
    first = median(taken["as they come"])
    for order, found in taken.items():
        report.row(
            work=work, order=order, seconds=median(found), times_as_fast=first / median(found)
        )


if __name__ == "__main__":
    main()
