"""A column's Arrow type as a name that can be read back, with the type itself where it cannot."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from functools import lru_cache

import pyarrow as pa
import pyarrow.types as types

from db.input_columns import JSON, InputColumn

_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns), tz=([^\]]+)\]")
_DECIMAL = re.compile(r"decimal(32|64|128|256)\((\d+), (-?\d+)\)")
_SMALL_INDICES = re.compile(r"indices=(u?)int(8|16), ordered=[01]>$")
_FIXED_BINARY = re.compile(r"fixed_size_binary\[(\d+)\]")


#: Categories whose order is stored, at most.
MAX_ORDERED = 10_000


def input_column(name: str, type_: pa.DataType, categories: pa.Array | None = None) -> InputColumn:
    """The column of that Arrow type; of ordered categories, with all of them in their order."""
    if types.is_dictionary(type_) and type_.ordered:
        if categories is None or len(categories) > MAX_ORDERED:
            return input_column(name, _unordered(type_))
        return InputColumn(name, str(type_), _with_categories(type_, categories))
    text = str(type_)
    if _named(text) == type_:
        return InputColumn(name, text)
    schema = pa.schema([pa.field("", type_)])
    return InputColumn(name, text, b64encode(schema.serialize().to_pybytes()).decode())


def without_order(column: InputColumn) -> InputColumn:
    """The same column of categories, in no order."""
    return input_column(column.name, _unordered(arrow_type(column)))


def index_limit(type_: str) -> int | None:
    """Categories that the small indices of a type of that name can tell apart; None: enough."""
    found = _SMALL_INDICES.search(type_)
    return None if found is None else 2 ** (int(found[2]) - (not found[1]))


def with_large_indices(column: InputColumn) -> InputColumn:
    """The same column, with room for any number of categories, in no order."""
    return input_column(column.name, pa.dictionary(pa.int32(), arrow_type(column).value_type))


def _unordered(type_: pa.DictionaryType) -> pa.DictionaryType:
    return pa.dictionary(type_.index_type, type_.value_type)


def _with_categories(type_: pa.DictionaryType, categories: pa.Array) -> str:
    empty = pa.DictionaryArray.from_arrays(pa.array([], type_.index_type), categories, ordered=True)
    batch = pa.record_batch([empty], names=[""])
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, batch.schema) as writer:
        writer.write_batch(batch)
    return b64encode(stream.getvalue().to_pybytes()).decode()


def ordered_categories(column: InputColumn) -> pa.Array | None:
    """All categories of a column that has them in an order; None: it has none."""
    is_ordered = column.arrow is not None and column.type.endswith("ordered=1>")
    return _categories(column.arrow) if is_ordered else None


@lru_cache(maxsize=64)
def _categories(stored: str) -> pa.Array:
    with pa.ipc.open_stream(pa.py_buffer(b64decode(stored))) as reader:
        return reader.read_next_batch().column(0).dictionary


def arrow_type(column: InputColumn) -> pa.DataType:
    """The column's Arrow type; of `json`, the type of its text."""
    if column.arrow is not None:
        return pa.ipc.read_schema(pa.py_buffer(b64decode(column.arrow))).field(0).type
    if column.type == JSON:
        return pa.string()
    found = _named(column.type)
    if found is None:
        raise ValueError(f"column '{column.name}' has the unknown type '{column.type}'")
    return found


def _named(text: str) -> pa.DataType | None:
    """The type of that name; None: a name does not define it."""
    if found := _TIMESTAMP.fullmatch(text):
        return pa.timestamp(found[1], tz=found[2])
    if found := _DECIMAL.fullmatch(text):
        return getattr(pa, f"decimal{found[1]}")(int(found[2]), int(found[3]))
    if found := _FIXED_BINARY.fullmatch(text):
        return pa.binary(int(found[1]))
    try:
        return pa.type_for_alias(text)
    except ValueError:
        return None
