"""What do single operators cost that generation on a CPU was built around?

    python benchmarks/operators.py
    python benchmarks/operators.py --vocabulary 128256 --width 2048

Each beside the way that was not taken, by the number of samples of a step.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Report, forget_settings
from worker.engine.transformers.projections import in_pieces
from worker.engine.transformers.sampler import likeliest

#: Tokens of a piece whose arg-max is taken without a float32 copy.
_PIECE = 16_384


def milliseconds(call: Callable[[], object], tries: int) -> float:
    """Median of `tries`, after one to warm up."""
    call()
    taken = []
    for _ in range(tries):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return 1000 * median(taken)


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0])
@click.option("--vocabulary", default=262_144, show_default=True)
@click.option("--width", default=640, show_default=True, help="Of a hidden state.")
@click.option("--samples", default=(4, 16, 64), multiple=True, show_default=True)
@click.option("--tries", default=15, show_default=True)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where JSON goes.")
@torch.inference_mode()
def main(
    vocabulary: int, width: int, samples: tuple[int, ...], tries: int, path: Path | None
) -> None:
    forget_settings()
    report = Report(
        "operators",
        "What do single operators cost, by the number of samples?",
        setup={"vocabulary": vocabulary, "width": width, "tries": tries},
        packages=("torch",),
    )
    weight = torch.randn(vocabulary, width).bfloat16()
    for count in samples:
        _measure(report, torch.randn(count, width).bfloat16(), weight, tries)
    report.finish(path)


def _measure(report: Report, hidden: torch.Tensor, weight: torch.Tensor, tries: int) -> None:
    logits = torch.empty(hidden.shape[0], weight.shape[0])
    ours = milliseconds(lambda: in_pieces(hidden, weight, logits), tries)
    whole = milliseconds(lambda: torch.mm(hidden, weight.T).float(), tries)
    rate = 2 * hidden.shape[0] * weight.numel() / ours / 1e6
    _row(report, hidden, "vocabulary projection: in pieces, or at once", ours, whole, rate)

    blocks = milliseconds(lambda: likeliest(logits), tries)
    plain = milliseconds(lambda: logits.max(dim=-1), tries)
    _row(report, hidden, "likeliest token: in blocks, or at once", blocks, plain)

    piecewise = milliseconds(lambda: _best_of_pieces(hidden, weight), tries)
    _row(report, hidden, "both: as above, or the best of each piece", ours + blocks, piecewise)


def _row(
    report: Report,
    hidden: torch.Tensor,
    what: str,
    ours: float,
    other: float,
    gflops: float | None = None,
) -> None:
    report.row(
        samples=hidden.shape[0],
        what=what,
        taken_ms=ours,
        other_ms=other,
        times_as_fast=other / ours,
        gflops=gflops,
    )


def _best_of_pieces(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The likeliest tokens, without ever holding all logits."""
    best = [torch.mm(hidden, piece.T).max(dim=-1) for piece in torch.split(weight, _PIECE)]
    piece = torch.stack([one.values for one in best]).argmax(dim=0)
    within = torch.stack([one.indices for one in best])
    return within.gather(0, piece.unsqueeze(0)).squeeze(0) + piece * _PIECE


if __name__ == "__main__":
    main()
