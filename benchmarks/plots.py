"""Draw what the benchmarks have measured: docs/performance-*.svg from their JSON.

    python benchmarks/plots.py
    python benchmarks/plots.py --results results/benchmarks --into docs

It needs matplotlib: the extra `bench`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import orjson

try:
    import matplotlib
except ImportError:
    sys.exit("plots.py needs matplotlib: pip install -e '.[bench]' -c constraints.txt")

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import FOLDER

matplotlib.use("svg")
# Text stays text, and the same figures give the same file.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "promptmill", "font.size": 9})

from matplotlib import pyplot as plt  # noqa: E402 - after its back-end is chosen

_OURS, _OTHERS = "#2a6f97", "#b8c4cc"


def bars(axes: Any, names: Sequence[str], values: Sequence[float], unit: str) -> None:
    """A bar a side, the longest on top; promptmill's are set off."""
    order = sorted(range(len(names)), key=lambda place: values[place])
    shown = [names[place] for place in order]
    colours = [_OURS if name.startswith("promptmill") else _OTHERS for name in shown]
    drawn = axes.barh(shown, [values[place] for place in order], color=colours)
    axes.bar_label(drawn, fmt="{:,.0f}", padding=3)
    axes.set_xlabel(unit)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)


def generation(rows: list[dict[str, Any]], about: str, limit: float | None = None) -> Any:
    figure, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
    names = [row["side"] for row in rows]
    bars(axes, names, [row["tokens_per_second"] for row in rows], "tokens a second")
    axes.set_title(f"Generation: {about}", loc="left")
    if limit is not None:
        axes.axvline(limit, linestyle=":", color="grey")
        axes.annotate(
            f"arithmetic limit {limit:,.0f}", (limit, 0), (-4, 0), rotation=90, ha="right",
            textcoords="offset points", color="grey", fontsize=8,
        )  # fmt: skip
    return figure


def queues(rows: list[dict[str, Any]], about: str) -> Any:
    kinds = list(dict.fromkeys(row["database"] for row in rows))
    figure, all_axes = plt.subplots(
        1, len(kinds), figsize=(8, 3), layout="constrained", squeeze=False
    )
    for axes, kind in zip(all_axes[0], kinds, strict=True):
        mine = [row for row in rows if row["database"] == kind]
        values = [row["jobs_per_second"] for row in mine]
        bars(axes, [row["side"] for row in mine], values, "jobs a second")
        axes.set_title(kind, loc="left")
    figure.suptitle(f"From submit to stored result: {about}", x=0.01, ha="left")
    return figure


def scaling(rows: list[dict[str, Any]], about: str) -> Any:
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    most = max(row["workers"] for row in rows)
    for kind in dict.fromkeys(row["database"] for row in rows):
        mine = [row for row in rows if row["database"] == kind]
        counts = [row["workers"] for row in mine]
        axes.plot(counts, [row["of_ideal"] * row["workers"] for row in mine], "o-", label=kind)
    axes.plot([1, most], [1, most], ":", color="grey", label="ideal")
    axes.set_xlabel("workers")
    axes.set_ylabel("times one ideal worker")
    axes.set_title(f"Scaling: {about}", loc="left")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def known_limit(results: Path) -> float | None:
    """What limit.py found, if it has run."""
    source = results / "limit.json"
    if not source.exists():
        return None
    return float(orjson.loads(source.read_bytes())["figures"]["limit_tokens_per_second"])


PLOTS: dict[str, Callable[..., Any]] = {
    "generation": generation,
    "queues": queues,
    "scaling": scaling,
}


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0])
@click.option("--results", default=FOLDER, type=click.Path(path_type=Path), show_default=True)
@click.option("--into", default=Path("docs"), type=click.Path(path_type=Path), show_default=True)
def main(results: Path, into: Path) -> None:
    for name, draw in PLOTS.items():
        source = results / f"{name}.json"
        if not source.exists():
            click.echo(f"{source} is not there: run benchmarks/{name}.py first", err=True)
            continue
        measured = orjson.loads(source.read_bytes())
        machine = measured["machine"]
        more = (known_limit(results),) if draw is generation else ()
        figure = draw(measured["rows"], f"{machine['cpu']}, {machine['cores']} cores", *more)
        target = into / f"performance-{name}.svg"
        figure.savefig(target, metadata={"Date": None})
        click.echo(f"{target}")


if __name__ == "__main__":
    main()
