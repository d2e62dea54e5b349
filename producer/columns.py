"""Choose a table's columns by the width there is, and shorten what may be shortened: pure.

A column that does not fit at its least width is left out whole, the least important one first, so
that no cell is cut where it would mislead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len, chop_cells

#: What is left out of a text: of a path its start, for its last name tells most.
Part = Literal["start", "middle", "end"]
#: Between two columns.
GAP = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table for people."""

    title: str
    #: 0: always shown. Of the others, the highest is left out first.
    rank: int = 0
    #: Which part a text that is too long loses; None: it is never shortened.
    shorten: Part | None = None
    #: Cells that a shortened column keeps.
    least: int = 12
    right: bool = False


def fitted(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[Column], list[list[str]]]:
    """The columns that fit into `width` cells, and their texts, shortened where needed."""
    chosen = list(range(len(columns)))
    natural = [
        max([cell_len(column.title), *(cell_len(row[index]) for row in rows)])
        for index, column in enumerate(columns)
    ]
    least = [
        min(size, max(column.least, cell_len(column.title))) if column.shorten else size
        for column, size in zip(columns, natural, strict=True)
    ]
    while _width(least, chosen) > width:
        optional = [index for index in chosen if columns[index].rank]
        if not optional:
            break
        chosen.remove(max(optional, key=lambda index: columns[index].rank))
    widths = _grown(least, natural, chosen, width)
    texts = [
        [shortened(row[index], widths[index], columns[index].shorten) for index in chosen]
        for row in rows
    ]
    return [columns[index] for index in chosen], texts


def shortened(text: str, width: int, where: Part | None) -> str:
    """The text in at most `width` cells, with … for what is left out; whole where None."""
    if where is None or cell_len(text) <= width:
        return text
    if where == "end":
        return _start(text, width - 1) + "…"
    if where == "start":
        return "…" + _start(text[::-1], width - 1)[::-1]
    after = (width - 1) * 2 // 3
    return _start(text, width - 1 - after) + "…" + _start(text[::-1], after)[::-1]


def broken_at_spaces(text: str, width: int, *, indent: int = 0) -> list[str]:
    """Its lines of at most `width` cells, where no single word is wider.

    The lines after the first are indented; spaces at a break are left out.
    """
    lines = [""]
    for word in re.findall(r" *[^ ]+", text):
        if lines[-1].strip() and cell_len(lines[-1] + word) > width:
            lines.append(" " * indent + word.lstrip())
        else:
            lines[-1] += word
    return lines


def drawn(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of the table, the titles first."""
    lines = [[column.title for column in columns], *rows]
    widths = [max(cell_len(line[index]) for line in lines) for index in range(len(columns))]
    return [
        GAP.join(
            _padded(cell, size, right=column.right)
            for cell, size, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    ]


def _width(widths: Sequence[int], chosen: Sequence[int]) -> int:
    return sum(widths[index] for index in chosen) + len(GAP) * (len(chosen) - 1)


def _grown(
    least: Sequence[int], natural: Sequence[int], chosen: Sequence[int], width: int
) -> list[int]:
    """Widths between the least and the natural ones that use up `width`, narrow columns first."""
    widths = list(least)
    spare = width - _width(least, chosen)
    growing = sorted(chosen, key=lambda index: natural[index] - least[index])
    for place, index in enumerate(growing):
        share = max(0, spare) // (len(growing) - place)
        extra = min(natural[index] - least[index], share)
        widths[index] += extra
        spare -= extra
    return widths


def _start(text: str, width: int) -> str:
    return chop_cells(text, width)[0] if width > 0 and text else ""


def _padded(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - cell_len(text))
    return space + text if right else text + space
