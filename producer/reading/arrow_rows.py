"""Arrow record batches as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.types as types

from db.errors import InputError
from producer.input_columns.arrow_cells import Unstorable, cells_of, plain_type
from producer.input_columns.arrow_types import input_column
from producer.input_columns.header import InputRow
from producer.reading.columns import TableColumns, TableRules
from producer.reading.csv_table import whole
from producer.reading.lines import TableRow

#: Columns that hold text where no template says how to read them.
_TEXTS = ("prompt", "text", "completion", "custom_id", "model")


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
) -> Iterator[tuple[int, TableRow]]:
    """Each row with its number, from 1. Raises InputError for a value that can't be read."""
    kinds = {}
    for column in columns.data:
        try:
            kinds[column] = input_column(column, plain_type(schema.field(column).type))
        except Unstorable as refused:
            raise InputError(f"{name}: the column '{column}' {refused}") from None
    number = 0
    for batch in batches:
        requests: list[dict[str, Any]] = _read(
            batch.select(columns.request), lambda part: part.to_pylist(), name, number
        )
        rows = [_read(batch.column(column), cells_of, name, number) for column in columns.data]
        cells = zip(*rows, strict=True) if rows else [()] * batch.num_rows
        for request, values in zip(requests, cells, strict=True):
            number += 1
            yield (
                number,
                TableRow(
                    request if by_template else _given(request),
                    InputRow(dict(zip(columns.data, values, strict=True)), kinds),
                ),
            )


def _read(part: Any, convert: Callable[[Any], list[Any]], name: str, done: int) -> list[Any]:
    """What `convert` makes of a record batch or an array; InputError names the bad row."""
    try:
        return convert(part)
    except (ValueError, OverflowError) as error:
        bad = next((row for row in range(len(part)) if _is_bad(part.slice(row, 1), convert)), 0)
        reason = " ".join(str(error).split())
        what = f"a value that can't be read ({reason}): convert its column to strings"
        if isinstance(error, UnicodeDecodeError):
            what = "not UTF-8 text: write the file again as UTF-8"
        elif isinstance(error, Unstorable):
            what = reason
        raise InputError(f"{name}: row {done + bad + 1}: {what}") from None


def _is_bad(part: Any, convert: Callable[[Any], list[Any]]) -> bool:
    try:
        convert(part)
    except (ValueError, OverflowError):
        return True
    return False


def _check_text_columns(schema: pa.Schema, request: Sequence[str], name: str) -> None:
    for column in _TEXTS:
        if column not in request:
            continue
        kind = schema.field(column).type
        plain = kind.value_type if types.is_dictionary(kind) else kind
        if not (
            types.is_string(plain) or types.is_large_string(plain) or types.is_string_view(plain)
        ):
            raise InputError(
                f"{name}: the column '{column}' holds {kind}, not text: convert it to strings"
            )


def _given(row: dict[str, Any]) -> dict[str, Any]:
    """Typed columns have gaps: NULL and NaN mean that the row does not give the value."""
    request = {}
    for column, value in row.items():
        if column == "prompt":
            request[column] = value
        elif value is not None and not (isinstance(value, float) and math.isnan(value)):
            request[column] = whole(value)
    if "messages" in request and request.get("prompt") is None:
        request.pop("prompt", None)
    return request
