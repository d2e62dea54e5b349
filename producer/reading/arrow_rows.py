"""Arrow record batches as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from db.errors import InputError
from db.input_columns import InputColumn
from producer.input_columns.arrow_cells import Unstorable, cells_of, plain_type
from producer.input_columns.arrow_types import input_column
from producer.input_columns.header import InputRow
from producer.reading.arrow_values import is_prompts, is_text, rows_of, unreadable
from producer.reading.columns import TableColumns, TableRules
from producer.reading.csv_table import TEXT_COLUMNS, json_cell
from producer.reading.lines import Flaw, TableRow
from producer.reading.texts import Refusal

#: Columns that hold text where no template says how to read them.
_TEXTS = ("prompt", "text", "completion", "model")
#: Of these, those that may hold token ids or lists of prompts, too.
_PROMPTS = ("prompt", "text")


def table_columns(schema: pa.Schema, rules: TableRules, name: str) -> TableColumns:
    """What becomes of the columns. Raises InputError where they don't fit."""
    columns = rules.split(schema.names, name)
    if rules.template is None:
        _check_text_columns(schema, columns.request, name)
    return columns


def arrow_rows(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    columns: TableColumns,
    name: str,
    *,
    by_template: bool,
) -> Iterator[tuple[int, TableRow | Flaw]]:
    """Each row with its number, from 1; a Flaw where it has a value that can't be read."""
    kinds = {}
    for column in columns.data:
        try:
            kinds[column] = input_column(column, plain_type(schema.field(column).type))
        except Unstorable as refused:
            raise InputError(f"{name}: the column '{column}' {refused}") from None
    number = 0
    for batch in batches:
        data = [_cells(batch.column(column)) for column in columns.data]
        rows = zip(*data, strict=True) if data else [()] * batch.num_rows
        for request, cells in zip(rows_of(batch.select(columns.request)), rows, strict=True):
            number += 1
            yield (
                number,
                _row(request, dict(zip(columns.data, cells, strict=True)), kinds, by_template),
            )


def _row(
    request: dict[str, Any] | Flaw,
    cells: dict[str, Any],
    kinds: Mapping[str, InputColumn],
    by_template: bool,
) -> TableRow | Flaw:
    flaws = [cell for cell in (request, *cells.values()) if isinstance(cell, Flaw)]
    if flaws or isinstance(request, Flaw):
        return flaws[0]
    try:
        return TableRow(request if by_template else _given(request), InputRow(cells, kinds))
    except Refusal as refusal:
        return Flaw(refusal.reason)


def _cells(array: pa.Array) -> list[Any]:
    """The array's values as cells, a Flaw for each that can't be read."""
    try:
        return cells_of(array)
    except (ValueError, OverflowError):
        return [_cell(array.slice(row, 1)) for row in range(len(array))]


def _cell(array: pa.Array) -> Any:
    try:
        return cells_of(array)[0]
    except Unstorable as error:
        return Flaw(" ".join(str(error).split()))
    except (ValueError, OverflowError) as error:
        return unreadable(error)


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
