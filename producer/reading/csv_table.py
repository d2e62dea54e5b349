"""CSV and TSV with a header: a record a request."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

import orjson

from db.errors import InputError
from producer.input_columns.header import InputRow, ValueKind
from producer.reading.columns import TableRules
from producer.reading.lines import Flaw, TableRow
from producer.reading.rawlines import TOO_LONG, not_utf8, raw_lines

#: Characters of one cell, at most; a quote that is never closed ends here. (The csv module
#: holds a cell in 4 bytes a character.)
_MAX_CELL = 16 * 2**20

#: Cells that are text even where they look like JSON.
_TEXT_COLUMNS = frozenset({"adapter", "custom_id", "model"})

#: Text, too, and an empty cell is an empty text.
_PROMPT_COLUMNS = frozenset({"prompt", "text", "completion"})


def csv_items(
    stream: Iterator[bytes], name: str, delimiter: str, rules: TableRules
) -> Iterator[tuple[int, TableRow | Flaw]]:
    """Each record's number (from 1, the header not counted) and its cells, or a Flaw.

    Raises InputError for a header that does not fit, quotes that don't match, and bytes that
    are no UTF-8. Raises the process's limit on the size of a CSV cell.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL))
    records = _records(stream, name, delimiter)
    header = next(records, None)
    if header is None:
        return
    columns = rules.split(header, name)
    request = [(header.index(column), column) for column in columns.request]
    data = [(header.index(column), column) for column in columns.data]
    cell = _cell if rules.template is None else _text
    for number, record in enumerate(records, 1):
        if len(record) == len(header):
            # CSV has no NULL but the empty cell.
            values = {column: record[index] or None for index, column in data}
            yield (
                number,
                TableRow(
                    {column: cell(column, record[index]) for index, column in request},
                    InputRow(values, ValueKind.TEXT),
                ),
            )
        else:
            yield (
                number,
                Flaw(
                    f"has {len(record)} cells where the header has {len(header)}: "
                    "add the missing ones, or quote cells with a delimiter in them"
                ),
            )


def _records(stream: Iterator[bytes], name: str, delimiter: str) -> Iterator[list[str]]:
    """The records, the header first; blank lines are none."""
    reader = csv.reader(_lines(stream, name), delimiter=delimiter, strict=True)
    try:
        for record in reader:
            if record:
                yield record
    except csv.Error as error:
        raise InputError(
            f"{name}:{reader.line_num}: broken CSV: {error}: check that every quote is closed "
            "and doubled inside a cell"
        ) from None


def _lines(stream: Iterator[bytes], name: str) -> Iterator[str]:
    for number, offset, line in raw_lines(stream, name):
        if line is None:
            raise InputError(f"{name}:{number}: {TOO_LONG}")
        try:
            yield line.decode() + "\n"
        except UnicodeDecodeError as error:
            raise not_utf8(name, number, offset, error) from None


def _text(_column: str, cell: str) -> str | None:
    """CSV has no NULL but the empty cell."""
    return cell or None


def _cell(column: str, cell: str) -> Any:
    """A cell of a request: text where text is due, else JSON where it is JSON."""
    if column in _PROMPT_COLUMNS:
        return cell
    if not cell:
        return None
    if column in _TEXT_COLUMNS or (column == "stop" and not cell.startswith("[")):
        return cell
    try:
        return whole(orjson.loads(cell))
    except orjson.JSONDecodeError:
        return cell


def whole(value: Any) -> Any:
    """A float without a fraction as an int: data frames write 30 as 30.0 in a column with gaps."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
