"""CSV and TSV with a header: a record a request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from db.errors import InputError
from db.exact_json import BrokenJson, loads
from producer.input_columns.header import InputRow, ValueKind
from producer.reading.columns import TableRules
from producer.reading.lines import Flaw, TableRow
from producer.reading.records import Dialect, records
from producer.reading.texts import Refusal

#: Columns of text in which an empty cell is an empty text.
_PROMPT_COLUMNS = frozenset({"prompt", "text", "completion"})

#: Columns whose cells are text even where they look like JSON.
TEXT_COLUMNS = _PROMPT_COLUMNS | {"adapter", "custom_id", "grammar", "model", "regex"}


def csv_items(
    stream: Iterator[bytes], name: str, dialect: Dialect, rules: TableRules
) -> Iterator[tuple[int, TableRow | Flaw]]:
    """Each record's number (from 1, the header not counted) and its cells, or a Flaw.

    Raises InputError for a header that does not fit, and where records can't be told apart.
    """
    rows = records(stream, name, dialect)
    first = next(rows, None)
    if first is None:
        return
    header = first.cells
    if isinstance(header, Flaw):
        raise InputError(f"{name}:{first.line}: {header.reason}")
    if dialect.quoting == "none" and all(map(_is_quoted, header)):
        raise InputError(f"{name}: every cell of the header is in quotes: give --quoting csv")
    columns = rules.split(header, name)
    request = [(header.index(column), column) for column in columns.request]
    data = [(header.index(column), column) for column in columns.data]
    cell = _cell if rules.template is None else _text
    for number, (line, cells) in enumerate(rows, 1):
        if isinstance(cells, Flaw):
            yield number, Flaw(f"{cells.reason} (line {line})")
            continue
        if len(cells) != len(header):
            yield number, Flaw(_miscounted(len(cells), len(header), dialect))
            continue
        # CSV has no NULL but the empty cell.
        values = {column: cells[index] or None for index, column in data}
        try:
            row = {column: cell(column, cells[index]) for index, column in request}
        except Refusal as refusal:
            yield number, Flaw(refusal.reason)
        else:
            yield number, TableRow(row, InputRow(values, ValueKind.TEXT))


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"'


def _miscounted(cells: int, columns: int, dialect: Dialect) -> str:
    counts = f"has {cells} cells where the header has {columns}: add the missing ones, or"
    if dialect.quoting == "csv":
        return f"{counts} quote cells with a delimiter in them"
    return f"{counts} give --quoting csv if cells are quoted, and may span lines, as in CSV"


def _text(_column: str, cell: str) -> str | None:
    """CSV has no NULL but the empty cell."""
    return cell or None


def _cell(column: str, cell: str) -> Any:
    """A cell of a request: text where text is due, else JSON where it is JSON."""
    if column in _PROMPT_COLUMNS:
        return cell
    if not cell:
        return None
    if column in TEXT_COLUMNS or (column == "stop" and not cell.startswith("[")):
        return cell
    return json_cell(column, cell)


def json_cell(column: str, cell: str) -> Any:
    """The value of a cell that may be JSON, else its text. Refusal where a key is given twice."""
    try:
        return loads(cell)
    except BrokenJson as error:
        if error.kind != "duplicate key":
            return cell
        raise Refusal(f"column '{column}': {error.reason}: keep one of the two") from None
