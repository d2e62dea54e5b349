"""Options on what records look like: what `results` and `run` take alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from db.faults import Faults
from producer.commands.options import Pair

F = TypeVar("F", bound=Callable[..., Any])

#: The parameters that `output_options` adds, besides `raw`.
OUTPUT_OPTIONS = ("provenance", "no_input_columns", "output_columns", "expand")


def output_options(function: F) -> F:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def new_names(pairs: Iterable[tuple[str, str]], faults: Faults) -> dict[str, str]:
    """The values of `--output-column` as a mapping; a column that is given twice is a fault."""
    names: dict[str, str] = {}
    for old, new in pairs:
        if old in names:
            faults.add(f"--output-column {old} is given twice: keep one")
        names[old] = new
    return names


_OPTIONS = (
    click.option(
        "--provenance", is_flag=True, help="Add what made each record: seed, worker, versions, …"
    ),
    click.option("--no-input-columns", is_flag=True, help="Leave out the columns of the input."),
    click.option(
        "--output-column",
        "output_columns",
        type=Pair(),
        multiple=True,
        metavar="OLD=NEW",
        help="Another name for a column of ours, as in text=label; repeat it.",
    ),
    click.option("--expand", is_flag=True, help="Write the fields of JSON answers as columns."),
    click.option("--raw", is_flag=True, help="Write CSV cells unchanged, even formulas."),
)
