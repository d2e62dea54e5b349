"""A column's Arrow type as a name that can be read back, with the type itself where it cannot."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode

import pyarrow as pa

from db.input_columns import JSON, InputColumn

_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns), tz=([^\]]+)\]")
_DECIMAL = re.compile(r"decimal(32|64|128|256)\((\d+), (-?\d+)\)")
_FIXED_BINARY = re.compile(r"fixed_size_binary\[(\d+)\]")


def input_column(name: str, type_: pa.DataType) -> InputColumn:
    """The column of that Arrow type."""
    text = str(type_)
    if _named(text) == type_:
        return InputColumn(name, text)
    schema = pa.schema([pa.field("", type_)])
    return InputColumn(name, text, b64encode(schema.serialize().to_pybytes()).decode())


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
