"""Arrow record batches, and columns of Python objects beside them, as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.types as types

from db.errors import InputError
from db.input_columns import InputColumn
from producer.input_columns.arrow_arrays import array_of
from producer.input_columns.arrow_cells import Unstorable, cells_of, plain_type
from producer.input_columns.arrow_types import input_column
from producer.input_columns.header import InputRow, ValueKind
from producer.reading.arrow_values import is_prompts, is_text, rows_of, unreadable
from producer.reading.columns import TableColumns, TableRules
from producer.reading.csv_table import TEXT_COLUMNS, json_cell
from producer.reading.lines import Flaw, TableRow
from producer.reading.texts import Refusal, shown

#: Columns that hold text where no template says how to read them.
_TEXTS = ("prompt", "text", "completion", "model")
#: Of these, those that may hold token ids or lists of prompts, too.
_PROMPTS = ("prompt", "text")


class Piece(NamedTuple):
    """Some rows of a table."""

    batch: pa.RecordBatch
    #: Python values, None for a missing one, of the columns that no Arrow type holds as they are:
    #: the batch has nulls for them.
    objects: Mapping[str, Sequence[Any]] = {}


def table_columns(
    schema: pa.Schema, rules: TableRules, name: str, *, untyped: Collection[str] = ()
) -> TableColumns:
    """What becomes of the columns, of which `untyped` are Python objects.

    Raises InputError where they don't fit.
    """
    columns = rules.split(schema.names, name)
    if rules.template is None:
        typed = [column for column in columns.request if column not in untyped]
        _check_text_columns(schema, typed, name)
    return columns


def arrow_rows(
    pieces: Iterable[Piece],
    schema: pa.Schema,
    columns: TableColumns,
    name: str,
    *,
    by_template: bool,
) -> Iterator[tuple[int, TableRow | Flaw]]:
    """Each row with its number, from 1; a Flaw where it has a value that can't be read."""
    kinds = _Kinds(schema, columns.data, name)
    number = 0
    for piece in pieces:
        of_piece = kinds.of(piece)
        data = [_cells(piece, column) for column in columns.data]
        rows = zip(*data, strict=True) if data else [()] * piece.batch.num_rows
        for request, cells in zip(_requests(piece, columns.request), rows, strict=True):
            number += 1
            yield (
                number,
                _row(request, dict(zip(columns.data, cells, strict=True)), of_piece, by_template),
            )


class _Kinds:
    """What the values of a table's columns are. Raises InputError for what a row cannot store."""

    def __init__(self, schema: pa.Schema, columns: Sequence[str], name: str) -> None:
        self._types = {column: _type(schema.field(column), name) for column in columns}
        self._kinds = {column: input_column(column, kind) for column, kind in self._types.items()}
        #: Of ordered categories, those that the last piece had.
        self._categories: dict[str, pa.Array | None] = {
            column: None
            for column in columns
            if types.is_dictionary(schema.field(column).type) and self._types[column].ordered
        }

    def of(self, piece: Piece) -> dict[str, InputColumn | ValueKind]:
        for column, before in self._categories.items():
            categories = piece.batch.column(column).dictionary
            if before is None or not before.equals(categories):
                self._categories[column] = categories
                plain = array_of(cells_of(categories), self._types[column].value_type)
                self._kinds[column] = input_column(column, self._types[column], plain)
        return {
            column: ValueKind.PYTHON if column in piece.objects else kind
            for column, kind in self._kinds.items()
        }


def _type(field: pa.Field, name: str) -> pa.DataType:
    try:
        return plain_type(field.type)
    except Unstorable as refused:
        raise InputError(f"{name}: the column {shown(field.name)} {refused}") from None


def _requests(piece: Piece, columns: Sequence[str]) -> Iterator[dict[str, Any] | Flaw]:
    """The values that each row's request is made of."""
    objects = {column: piece.objects[column] for column in columns if column in piece.objects}
    for index, row in enumerate(rows_of(piece.batch.select(columns))):
        if not isinstance(row, Flaw):
            row.update((column, values[index]) for column, values in objects.items())
        yield row


def _row(
    request: dict[str, Any] | Flaw,
    cells: dict[str, Any],
    kinds: Mapping[str, InputColumn | ValueKind],
    by_template: bool,
) -> TableRow | Flaw:
    flaws = [cell for cell in (request, *cells.values()) if isinstance(cell, Flaw)]
    if flaws or isinstance(request, Flaw):
        # NULL, so that the columns keep their order.
        readable = {name: None if isinstance(cell, Flaw) else cell for name, cell in cells.items()}
        left = {} if isinstance(request, Flaw) else request
        return Flaw(flaws[0].reason, TableRow(left, InputRow(readable, kinds)))
    try:
        return TableRow(request if by_template else _given(request), InputRow(cells, kinds))
    except Refusal as refusal:
        return Flaw(refusal.reason)


def _cells(piece: Piece, column: str) -> Sequence[Any]:
    """The column's values as cells, a Flaw for each that can't be read."""
    if column in piece.objects:
        return piece.objects[column]
    array = piece.batch.column(column)
    try:
        return cells_of(array)
    except (ValueError, OverflowError):
        return [_cell(array.slice(row, 1), column) for row in range(len(array))]


def _cell(array: pa.Array, column: str) -> Any:
    try:
        return cells_of(array)[0]
    except Unstorable as error:
        return Flaw(f"column {shown(column)} {' '.join(str(error).split())}")
    except (ValueError, OverflowError) as error:
        return unreadable(error, column)


def _check_text_columns(schema: pa.Schema, request: Sequence[str], name: str) -> None:
    for column in set(_TEXTS) & set(request):
        kind = schema.field(column).type
        if not (is_text(kind) or (column in _PROMPTS and is_prompts(kind))):
            raise InputError(
                f"{name}: the column '{column}' holds {kind}, not text: convert it to strings"
            )


def _given(row: dict[str, Any]) -> dict[str, Any]:
    """Typed columns have gaps: NULL and NaN mean that the row does not give the value.

    Raises Refusal.
    """
    request = {}
    for column, value in row.items():
        if column == "prompt":
            request[column] = value
        elif value is not None and not (isinstance(value, float) and math.isnan(value)):
            request[column] = _decoded(column, value)
    if "messages" in request and request.get("prompt") is None:
        request.pop("prompt", None)
    return request


def _decoded(column: str, value: Any) -> Any:
    """What is text in a column of lists or objects is JSON, as in CSV."""
    if not isinstance(value, str) or column in TEXT_COLUMNS or not value.startswith(("[", "{")):
        return value
    return json_cell(column, value)
