"""Parquet: a row a request, read batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import IO, Any

from db.errors import InputError
from producer.reading.columns import columns_to_read
from producer.reading.csv_table import whole
from producer.reading.keys import Names
from producer.reading.streams import CHUNK
from producer.reading.template import Template
from producer.reading.texts import shown

_MAGIC = b"PAR1"

#: Bytes that one batch of rows should take, and rows at most.
_BATCH_BYTES = 8 * 2**20
_BATCH_ROWS = 4096


def parquet_items(
    file: IO[bytes], name: str, template: Template | None, names: Names
) -> Iterator[tuple[int, object]]:
    """Each row's number (from 1) and its cells by column.

    Holds one batch of rows and one page of each column, whose size the file's writer chose.
    `file` is seekable. Raises InputError for a file that is no parquet or is cut off, columns
    that don't fit, and text that is no UTF-8.
    """
    if not file.read(1):
        return
    _check_magic(file, name)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file, buffer_size=CHUNK, pre_buffer=False)
        wanted = columns_to_read(table.schema_arrow.names, template, names, name)
        if template is None:
            _check_text_columns(table.schema_arrow, name)
        rows = _batch_rows(table.metadata)
        number = 0
        for batch in table.iter_batches(batch_size=rows, columns=wanted, use_threads=False):
            for row in _rows(batch, name, number):
                number += 1
                yield number, row if template is not None else _request(row)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(name, error) from None


def _check_magic(file: IO[bytes], name: str) -> None:
    """Told here, since pyarrow's words for it mean little to a user."""
    file.seek(0)
    head = file.read(12)
    if not head.startswith(_MAGIC):
        raise InputError(
            f"{name}: not a parquet file (it starts with {shown(head)}): "
            "give it the suffix of what it is, as .jsonl, .csv or .txt"
        )
    size = file.seek(0, 2)
    file.seek(max(0, size - len(_MAGIC)))
    tail = file.read()
    file.seek(0)
    if size < 12 or tail != _MAGIC:
        raise InputError(f"{name}: ends early: this parquet file is cut off, copy it again")


def _damaged(name: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"{name}: can't be read as parquet ({reason}): write the file again")


def _check_text_columns(schema: Any, name: str) -> None:
    import pyarrow.types as types

    for column in ("prompt", "text", "completion", "custom_id", "model"):
        if column not in schema.names:
            continue
        kind = schema.field(column).type
        plain = kind.value_type if types.is_dictionary(kind) else kind
        if not (
            types.is_string(plain) or types.is_large_string(plain) or types.is_string_view(plain)
        ):
            raise InputError(
                f"{name}: the column '{column}' holds {kind}, not text: convert it to strings"
            )


def _batch_rows(metadata: Any) -> int:
    """Rows of a batch, so that one of average rows takes about _BATCH_BYTES."""
    size = sum(
        metadata.row_group(place).total_byte_size for place in range(metadata.num_row_groups)
    )
    average = size / max(1, metadata.num_rows)
    return max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(1.0, average))))


def _rows(batch: Any, name: str, done: int) -> list[dict[str, Any]]:
    try:
        return list(batch.to_pylist())
    except (ValueError, OverflowError) as error:
        rows = range(batch.num_rows)
        bad = next((place for place in rows if not _decodes(batch.slice(place, 1))), 0)
        reason = " ".join(str(error).split())
        what = (
            "not UTF-8 text: write the file again as UTF-8"
            if isinstance(error, UnicodeDecodeError)
            else f"a value that can't be read ({reason}): convert its column to strings"
        )
        raise InputError(f"{name}: row {done + bad + 1}: {what}") from None


def _decodes(row: Any) -> bool:
    try:
        row.to_pylist()
    except (ValueError, OverflowError):
        return False
    return True


def _request(row: dict[str, Any]) -> dict[str, Any]:
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
