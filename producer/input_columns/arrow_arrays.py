"""Values of stored rows to Arrow arrays of their column's type: what Parquet and data frames take.

The inverse of `arrow_cells`.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from db.input_columns import ABSENT, InputColumn
from producer.input_columns.arrow_types import arrow_type, ordered_categories

#: Units of a second.
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def arrow_array(column: InputColumn, values: Sequence[Any]) -> pa.Array:
    """The column's values, in the form of `Result.columns`; what a row lacks is null."""
    plain = [None if value is ABSENT else value for value in values]
    type_ = arrow_type(column)
    categories = ordered_categories(column)
    if categories is None:
        return array_of(plain, type_)
    indices = pc.index_in(array_of(plain, type_.value_type), value_set=categories)
    return pa.DictionaryArray.from_arrays(indices.cast(type_.index_type), categories, ordered=True)


def array_of(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    """An array of that type, which is one that `arrow_cells.plain_type` returns."""
    if types.is_dictionary(type_):
        return array_of(values, type_.value_type).dictionary_encode().cast(type_)
    for is_type, decode in _DECODERS:
        if is_type(type_):
            return decode(values, type_)
    return pa.array(values, type_)


def _float16(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    return pa.array(_numbers(values), pa.float32()).cast(type_)


def _floats(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    return pa.array(_numbers(values), type_)


def _numbers(values: Sequence[Any]) -> list[Any]:
    """Within a nested value, NaN and the infinities are text still."""
    return [float(value) if type(value) is str else value for value in values]


def _cast(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    return pa.array(values, pa.string()).cast(type_)


def _date64(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    return _cast(values, pa.date32()).cast(type_)


def _times(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    width = pa.int32() if types.is_time32(type_) else pa.int64()
    per_second = _UNITS[type_.unit]
    return pa.array([_ticks(value, per_second) for value in values], width).cast(type_)


def _ticks(text: str | None, per_second: int) -> int | None:
    """Units since midnight of `hh:mm:ss` with a fraction of the unit's digits, if any."""
    if text is None:
        return None
    whole, _, fraction = text.partition(".")
    hours, minutes, seconds = map(int, whole.split(":"))
    return ((hours * 60 + minutes) * 60 + seconds) * per_second + int(fraction or 0)


def _durations(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    return pa.array(values, pa.int64()).cast(type_)


def _binaries(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    return pa.array([None if value is None else b64decode(value) for value in values], type_)


def _structs(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    fields = [type_.field(index) for index in range(type_.num_fields)]
    children = [
        array_of([None if value is None else value.get(field.name) for value in values], field.type)
        for field in fields
    ]
    missing = pa.array([value is None for value in values], pa.bool_())
    if not fields:
        return pa.array(values, type_)
    return pa.StructArray.from_arrays(children, fields=fields, mask=missing)


def _lists(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    flat = [item for value in values for item in value or ()]
    kind = pa.LargeListArray if types.is_large_list(type_) else pa.ListArray
    return kind.from_arrays(_offsets(values), array_of(flat, type_.value_type)).cast(type_)


def _fixed_lists(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    gap = [None] * type_.list_size
    flat = [item for value in values for item in (gap if value is None else value)]
    missing = pa.array([value is None for value in values], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(
        array_of(flat, type_.value_type), type=type_, mask=missing
    )


def _maps(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    pairs = [pair for value in values for pair in value or ()]
    keys = array_of([key for key, _ in pairs], type_.key_type)
    items = array_of([item for _, item in pairs], type_.item_type)
    return pa.MapArray.from_arrays(_offsets(values), keys, items, type_)


def _offsets(values: Sequence[Any]) -> pa.Array:
    """Where each list begins, and the last one ends; null where there is no list."""
    starts = list(accumulate((len(value or ()) for value in values), initial=0))
    last = starts.pop()
    return pa.array(
        [None if value is None else start for value, start in zip(values, starts, strict=True)]
        + [last],
        pa.int32(),
    )


def _is_binary(type_: pa.DataType) -> bool:
    return bool(
        types.is_binary(type_)
        or types.is_large_binary(type_)
        or types.is_fixed_size_binary(type_)
        or types.is_binary_view(type_)
    )


_DECODERS: tuple[
    tuple[Callable[[pa.DataType], bool], Callable[[Sequence[Any], pa.DataType], pa.Array]], ...
] = (
    (types.is_float16, _float16),
    (types.is_floating, _floats),
    (types.is_decimal, _cast),
    (types.is_timestamp, _cast),
    (types.is_date64, _date64),
    (types.is_date32, _cast),
    (types.is_time, _times),
    (types.is_duration, _durations),
    (_is_binary, _binaries),
    (types.is_struct, _structs),
    (types.is_map, _maps),
    (types.is_fixed_size_list, _fixed_lists),
    (lambda type_: types.is_list(type_) or types.is_large_list(type_), _lists),
)
