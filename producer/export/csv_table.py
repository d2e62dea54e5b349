"""CSV (RFC 4180, UTF-8, CRLF): a row a sample.

A spreadsheet runs a cell that begins like a formula, and a model may write anything. Unless the
output is `raw`, such a cell of text gets an apostrophe in front, as OWASP advises; a program
that reads the file back wants it raw.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import orjson

from db.exact_json import dumps
from db.input_columns import ABSENT
from db.pages import Page
from producer.export.fields import iso
from producer.export.layout import InputSource, Layout, OutputColumn
from producer.export.record_columns import RecordColumn, Type
from producer.export.records import Records

#: What a spreadsheet takes for the start of a formula, at the start of a cell.
FORMULA_STARTS = frozenset("=+-@\t\r")

Cell = str | int | float | None


class _Encoder:
    """What csv.writer writes to: it hands each row back as bytes."""

    def write(self, row: str) -> bytes:
        return row.encode()


def header(layout: Layout, *, raw: bool) -> bytes:
    names: list[Cell] = [column.name for column in layout.columns]
    written: bytes = _row_writer()(names if raw else list(map(guarded, names)))
    return written


def lines(pages: Iterable[Page], layout: Layout, *, raw: bool) -> Iterator[tuple[int, bytes]]:
    """How many rows, and they."""
    write_row = _row_writer()
    for page in pages:
        records = Records(page, layout)
        columns = [_column(records, column, raw=raw) for column in layout.columns]
        yield len(page), b"".join(map(write_row, zip(*columns, strict=True)))


def guarded(cell: Cell) -> Cell:
    """The cell, harmless to a spreadsheet."""
    if isinstance(cell, str) and cell[:1] in FORMULA_STARTS:
        return "'" + cell
    return cell


def _row_writer() -> Callable[[Iterable[Any]], Any]:
    """Returns what _Encoder.write returns."""
    return csv.writer(_Encoder(), lineterminator="\r\n").writerow


def _column(records: Records, column: OutputColumn, *, raw: bool) -> Sequence[Cell]:
    values = records.values(column)
    source = column.source
    if isinstance(source, RecordColumn):
        made = _CELLS.get(source.type)
        cells = values if made is None else [None if v is None else made(v) for v in values]
    else:
        cells = list(map(_plain, values))
    if raw or _is_number(source):
        return cells
    return list(map(guarded, cells))


def _is_number(source: object) -> bool:
    if isinstance(source, InputSource):
        # What the input wrote as a number is one: a minus is no formula.
        return source.column.type.startswith(("int", "uint", "float", "double", "half", "decimal"))
    numbers = (Type.INTEGER, Type.LONG, Type.NUMBER, Type.TIME)
    return isinstance(source, RecordColumn) and source.type in numbers


def _plain(value: Any) -> Cell:
    """Of the input or an answer."""
    if value is None or value is ABSENT:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return dumps(value).decode()
    cell: Cell = value
    return cell


#: Cells of types that are not written as they are.
_CELLS: dict[Type, Callable[[Any], Cell]] = {
    Type.TIME: iso,
    Type.VECTOR: lambda vector: orjson.dumps(vector.tolist()).decode(),
}
