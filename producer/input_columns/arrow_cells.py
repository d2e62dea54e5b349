"""Arrow arrays to cells of stored rows: a Python value each, as JSON has it, nothing lost.

The inverse of `arrow_arrays`. What a type's values become is in `db.input_columns.InputColumn`.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types


class Unstorable(ValueError):
    """An array holds what a row cannot store; the message goes on after the column's name."""


def plain_type(type_: pa.DataType) -> pa.DataType:
    """The type that a column is stored as: of an extension type its storage, of a view its like.

    Raises Unstorable.
    """
    if isinstance(type_, pa.BaseExtensionType):
        return plain_type(type_.storage_type)
    if types.is_run_end_encoded(type_):
        return plain_type(type_.value_type)
    if types.is_union(type_) or types.is_interval(type_):
        raise Unstorable(f"holds {type_}, which has no place in a row: convert it to strings")
    if types.is_string_view(type_):
        return pa.large_string()
    if types.is_binary_view(type_):
        return pa.large_binary()
    if types.is_dictionary(type_):
        return pa.dictionary(type_.index_type, plain_type(type_.value_type), type_.ordered)
    return _plain_nested(type_)


def _plain_nested(type_: pa.DataType) -> pa.DataType:
    """`plain_type` of a nested type."""
    if types.is_struct(type_):
        return pa.struct([_plain_field(type_.field(index)) for index in range(type_.num_fields)])
    if types.is_map(type_):
        return pa.map_(
            _plain_field(type_.key_field), _plain_field(type_.item_field), type_.keys_sorted
        )
    if types.is_fixed_size_list(type_):
        return pa.list_(_plain_field(type_.value_field), type_.list_size)
    if types.is_large_list(type_) or types.is_large_list_view(type_):
        return pa.large_list(_plain_field(type_.value_field))
    return pa.list_(_plain_field(type_.value_field)) if _is_list(type_) else type_


def _plain_field(field: pa.Field) -> pa.Field:
    """Of categories within a nested value, neither their order nor their number is stored."""
    type_ = plain_type(field.type)
    if types.is_dictionary(type_):
        type_ = pa.dictionary(pa.int32(), type_.value_type)
    return field.with_type(type_)


def cells_of(array: pa.Array) -> list[Any]:
    """A value each: what JSON has for the type, not yet wrapped as a cell of a row.

    Raises Unstorable, and UnicodeDecodeError for text that is no UTF-8.
    """
    if isinstance(array, pa.ExtensionArray):
        return cells_of(array.storage)
    type_ = array.type
    if types.is_run_end_encoded(type_):
        return cells_of(pc.run_end_decode(array))
    if types.is_dictionary(type_):
        values = cells_of(array.dictionary)
        return [None if index is None else values[index] for index in array.indices.to_pylist()]
    encode = next(encode for is_type, encode in _ENCODERS if is_type(type_))
    return encode(array)


def _floats(array: pa.Array) -> list[Any]:
    values = _plain(array.cast(pa.float64()))
    if pc.all(pc.is_finite(array.cast(pa.float64()))).as_py() is not False:
        return values
    return [
        value if value is None or math.isfinite(value) else _infinite(value) for value in values
    ]


def _infinite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decimals(array: pa.Array) -> list[Any]:
    return [None if value is None else format(value, "f") for value in array.to_pylist()]


def _timestamps(array: pa.Array) -> list[Any]:
    if array.type.tz is not None:
        array = array.cast(pa.timestamp(array.type.unit, tz="UTC"))
    texts = array.cast(pa.string())
    if pc.all(pc.match_substring_regex(texts, r"^\d{4}-")).as_py() is False:
        raise Unstorable("holds a time outside the years 0 to 9999: convert it to strings")
    return _plain(pc.replace_substring(texts, " ", "T"))


def _dates(array: pa.Array) -> list[Any]:
    texts = array.cast(pa.string())
    if pc.all(pc.match_substring_regex(texts, r"^\d{4}-")).as_py() is False:
        raise Unstorable("holds a date outside the years 0 to 9999: convert it to strings")
    return _plain(texts)


def _durations(array: pa.Array) -> list[Any]:
    return _plain(array.cast(pa.int64()))


def _times(array: pa.Array) -> list[Any]:
    return _plain(array.cast(pa.string()))


def _binaries(array: pa.Array) -> list[Any]:
    return [None if value is None else b64encode(value).decode() for value in array.to_pylist()]


def _structs(array: pa.Array) -> list[Any]:
    names = [array.type.field(index).name for index in range(array.type.num_fields)]
    if len(set(names)) < len(names):
        raise Unstorable("holds structs with two fields of one name: rename one")
    valid = array.is_valid().to_pylist()
    if not names:
        return [{} if there else None for there in valid]
    fields = [cells_of(field) for field in array.flatten()]
    return [
        dict(zip(names, values, strict=True)) if there else None
        for there, values in zip(valid, zip(*fields, strict=True), strict=True)
    ]


def _lists(array: pa.Array) -> list[Any]:
    return _cut(cells_of(array.flatten()), pc.list_value_length(array).to_pylist())


def _maps(array: pa.Array) -> list[Any]:
    """A list of pairs each: a map's keys need be no text."""
    pairs = [list(pair) for pair in zip(cells_of(array.keys), cells_of(array.items), strict=True)]
    bounds = array.offsets.to_pylist()
    return [
        pairs[start:end] if there else None
        for there, start, end in zip(array.is_valid().to_pylist(), bounds, bounds[1:], strict=False)
    ]


def _cut(values: list[Any], lengths: Sequence[int | None]) -> list[Any]:
    lists: list[Any] = []
    start = 0
    for length in lengths:
        lists.append(None if length is None else values[start : start + length])
        start += length or 0
    return lists


def _plain(array: pa.Array) -> list[Any]:
    values: list[Any] = array.to_pylist()
    return values


def _is_list(type_: pa.DataType) -> bool:
    return bool(
        types.is_list(type_)
        or types.is_large_list(type_)
        or types.is_fixed_size_list(type_)
        or types.is_list_view(type_)
        or types.is_large_list_view(type_)
    )


def _is_binary(type_: pa.DataType) -> bool:
    return bool(
        types.is_binary(type_)
        or types.is_large_binary(type_)
        or types.is_fixed_size_binary(type_)
        or types.is_binary_view(type_)
    )


_ENCODERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], list[Any]]], ...] = (
    (types.is_floating, _floats),
    (types.is_decimal, _decimals),
    (types.is_timestamp, _timestamps),
    (types.is_date, _dates),
    (types.is_time, _times),
    (types.is_duration, _durations),
    (_is_binary, _binaries),
    (types.is_struct, _structs),
    (types.is_map, _maps),
    (_is_list, _lists),
    (types.is_string_view, _plain),
    (lambda type_: plain_type(type_) == type_, _plain),
)
