"""Results as Arrow: what Parquet files and data frames are made of, in batches of bounded size."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import orjson
import pyarrow as pa

from db.input_columns import ABSENT
from db.pages import Page
from producer.export.answer_fields import FieldType
from producer.export.layout import InputSource, Layout, OutputColumn
from producer.export.record_columns import RecordColumn, Type
from producer.export.records import Records
from producer.input_columns.arrow_arrays import arrow_array
from producer.input_columns.arrow_types import arrow_type

#: Rows of a batch at most …
_ROWS = 8_192
#: … and characters of text that it may hold, so that long texts don't pile up in memory.
_CHARACTERS = 16 << 20
#: Parsed log-probabilities take this many times their JSON's size.
_LOGPROBS_WEIGHT = 8
#: Bytes of a number of an embedding.
_NUMBER = 4
#: As many characters as a number within a nested cell counts for.
_CELL_NUMBER = 8

_TOKEN = [
    pa.field("token", pa.string()),
    pa.field("token_id", pa.int64()),
    pa.field("logprob", pa.float64()),
    #: Of a token that is not whole characters.
    pa.field("bytes", pa.list_(pa.uint8())),
]

_TYPES = {
    Type.TEXT: pa.string(),
    Type.INTEGER: pa.int32(),
    Type.LONG: pa.int64(),
    Type.NUMBER: pa.float64(),
    Type.TIME: pa.timestamp("us", tz="UTC"),
    Type.JSON: pa.string(),
    #: A token each, with the likeliest tokens at its place.
    Type.TOKENS: pa.list_(pa.struct([*_TOKEN, pa.field("top", pa.list_(pa.struct(_TOKEN)))])),
    Type.VECTOR: pa.list_(pa.float32()),
}

_FIELD_TYPES = {
    FieldType.TEXT: pa.string(),
    FieldType.INTEGER: pa.int64(),
    FieldType.NUMBER: pa.float64(),
    FieldType.BOOLEAN: pa.bool_(),
    FieldType.JSON: pa.string(),
}


def schema_of(layout: Layout) -> pa.Schema:
    return pa.schema([pa.field(column.name, _type_of(column)) for column in layout.columns])


def record_batches(pages: Iterable[Page], layout: Layout) -> Iterator[pa.RecordBatch]:
    schema = schema_of(layout)
    for group in _groups(pages):
        records = [Records(page, layout) for page in group]
        arrays = [_array(column, records) for column in layout.columns]
        yield pa.record_batch(arrays, schema=schema)


def _groups(pages: Iterable[Page]) -> Iterator[list[Page]]:
    """Pages and parts of pages that together make a batch."""
    group: list[Page] = []
    rows, size = 0, 0
    for page in pages:
        start = 0
        for index, record_size in enumerate(_sizes(page), start=1):
            size += record_size
            rows += 1
            if rows >= _ROWS or size >= _CHARACTERS:
                yield [*group, page[start:index]]
                group, start, rows, size = [], index, 0, 0
        if start < len(page):
            group.append(page[start:] if start else page)
    if group:
        yield group


#: Fields of Result whose length decides what a record takes.
_LONG_FIELDS = ("text", "reasoning", "tool_calls", "request")


def _sizes(page: Page) -> Iterable[int]:
    """Characters that each record takes, about."""
    sizes = [0] * len(page)
    weights = {**dict.fromkeys(_LONG_FIELDS, 1), "logprobs": _LOGPROBS_WEIGHT, "embedding": _NUMBER}
    for name, weight in weights.items():
        values = page.column(name)
        if values.count(None) < len(values):
            for index, value in enumerate(values):
                sizes[index] += len(value or ()) * weight
    for index, row in enumerate(page.column("columns")):
        sizes[index] += sum(
            _size(cell) for cell in row or () if isinstance(cell, str | list | dict)
        )
    return sizes


def _size(cell: Any) -> int:
    """Characters that a cell of the input takes, about; of a list, all items are like the first."""
    if isinstance(cell, str):
        return len(cell)
    if isinstance(cell, dict):
        return sum(map(_size, cell.values()))
    if not isinstance(cell, list):
        return _CELL_NUMBER
    is_flat = bool(cell) and not isinstance(cell[0], str | list | dict)
    return _CELL_NUMBER * len(cell) if is_flat else sum(map(_size, cell))


def _type_of(column: OutputColumn) -> pa.DataType:
    source = column.source
    if isinstance(source, RecordColumn):
        return _TYPES[source.type]
    if isinstance(source, InputSource):
        return arrow_type(source.column)
    return _FIELD_TYPES[source.field.type]


def _array(column: OutputColumn, records: Sequence[Records]) -> pa.Array:
    values = list(chain.from_iterable(page.values(column) for page in records))
    source = column.source
    if isinstance(source, InputSource):
        return arrow_array(source.column, values)
    if isinstance(source, RecordColumn):
        if source.type is Type.VECTOR:
            return _vectors(values)
        if source.type is Type.TOKENS:
            values = [None if value is None else orjson.loads(value) for value in values]
        elif source.type is Type.TIME:
            values = [None if value is None else round(value * 1e6) for value in values]
    else:
        values = [None if value is ABSENT else value for value in values]
    return pa.array(values, _type_of(column))


def _vectors(vectors: Sequence[Any]) -> pa.Array:
    """As they lie in memory: Python sees no number of them."""
    numbers = array("f")
    starts: list[int | None] = []
    for vector in vectors:
        starts.append(None if vector is None else len(numbers))
        numbers.extend(vector or ())
    values = pa.Array.from_buffers(pa.float32(), len(numbers), [None, pa.py_buffer(numbers)])
    offsets = pa.array([*starts, len(numbers)], pa.int32())
    return pa.ListArray.from_arrays(offsets, values)
