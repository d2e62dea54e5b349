"""Values of Arrow's columns as the values that JSON would have."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from typing import Any

from db.exact_json import number
from producer.reading.lines import Flaw
from producer.reading.texts import Refusal, shown

Convert = Callable[[Any], Any]


def rows_of(batch: Any) -> Iterator[dict[str, Any] | Flaw]:
    """Each row of a RecordBatch, its cells by column, or why it can't be read.

    A column of structs has every key in every row: one that is NULL was not given, and is absent
    here. NULL as a cell, as an element of a list and as a value of a map stays None. A float32 is
    the shortest number that it stands for, and binary data is text in UTF-8.
    """
    converts = [(field.name, _converter(field.type)) for field in batch.schema]
    converts = [(name, convert) for name, convert in converts if convert is not None]
    for row in _raw_rows(batch):
        yield row if isinstance(row, Flaw) or not converts else _converted(row, converts)


def is_text(kind: Any) -> bool:
    """Whether a column of this type holds texts: strings, or the binary data that they may be."""
    import pyarrow.types as types

    plain = kind.value_type if types.is_dictionary(kind) else kind
    checks = (
        *(types.is_string, types.is_large_string, types.is_string_view),
        *(types.is_binary, types.is_large_binary, types.is_binary_view),
    )
    return any(check(plain) for check in checks)


def is_prompts(kind: Any) -> bool:
    """Whether a column of this type holds token ids, or lists of prompts: texts or token ids."""
    import pyarrow.types as types

    inner = _item_type(kind)
    if inner is None:
        return False
    innermost = _item_type(inner) or inner
    return types.is_integer(innermost) or is_text(inner)


def _item_type(kind: Any) -> Any | None:
    """What a list has, in whichever layout; None: it is no list."""
    import pyarrow.types as types

    other = types.is_map(kind) or types.is_struct(kind) or types.is_union(kind)
    return kind.value_type if types.is_nested(kind) and not other else None


def _raw_rows(batch: Any) -> Iterator[dict[str, Any] | Flaw]:
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):
        for index in range(batch.num_rows):
            yield _raw_row(batch.slice(index, 1))


def _raw_row(row: Any) -> dict[str, Any] | Flaw:
    values: dict[str, Any] = {}
    for name, array in zip(row.schema.names, row.columns, strict=True):
        try:
            values[name] = array[0].as_py()
        except (ValueError, OverflowError) as error:
            return unreadable(error, name)
    return values


def unreadable(error: Exception, column: str) -> Flaw:
    """That pyarrow can't read a value of the column."""
    if isinstance(error, UnicodeDecodeError):
        return Flaw(f"column {shown(column)} is not UTF-8 text: write the file again as UTF-8")
    reason = " ".join(str(error).split())
    return Flaw(f"column {shown(column)} can't be read ({reason}): convert it to strings")


def _converted(row: dict[str, Any], converts: list[tuple[str, Any]]) -> dict[str, Any] | Flaw:
    for name, convert in converts:
        value = row[name]
        if value is not None:
            try:
                row[name] = convert(value)
            except Refusal as refusal:
                return Flaw(f"column {shown(name)} {refusal.reason}")
    return row


def _converter(kind: Any, *, nested: bool = False) -> Convert | None:
    """How a value of Arrow's type `kind`, not None, is converted; None: it stays as it is."""
    import pyarrow.types as types

    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _converter(kind.value_type, nested=nested)
    if types.is_struct(kind):
        return partial(_object, {field.name: _converter(field.type, nested=True) for field in kind})
    if types.is_map(kind):
        key, value = (_converter(item, nested=True) for item in (kind.key_type, kind.item_type))
        return partial(_map, key, value)
    if types.is_nested(kind) and not types.is_union(kind):  # lists, in all their layouts
        convert = _converter(kind.value_type, nested=True)
        return None if convert is None else partial(_list, convert)
    if types.is_float16(kind) or types.is_float32(kind):
        return _shortest
    if is_text(kind) and "binary" in str(kind):
        return _utf8
    if nested and types.is_decimal(kind):
        return _number
    return None


def _object(converts: dict[str, Convert | None], value: dict[str, Any]) -> dict[str, Any]:
    return {
        key: inner if (convert := converts[key]) is None else convert(inner)
        for key, inner in value.items()
        if inner is not None and not (isinstance(inner, float) and math.isnan(inner))
    }


def _map(
    key_convert: Convert | None, convert: Convert | None, value: list[tuple[Any, Any]]
) -> dict[str, Any]:
    items: dict[str, Any] = {}
    for key, inner in value:
        name = str(key if key_convert is None else key_convert(key))
        if name in items:
            raise Refusal(f"has the key {shown(name)} twice in a map: keep one of the two")
        items[name] = inner if convert is None or inner is None else convert(inner)
    return items


def _list(convert: Convert, value: list[Any]) -> list[Any]:
    return [None if inner is None else convert(inner) for inner in value]


def _shortest(value: float) -> float:
    """The number with the fewest digits that the same float32 stands for."""
    value = float(value)
    if not math.isfinite(value):
        return value
    single = struct.pack("f", value)
    return next(
        (
            candidate
            for digits in range(1, 9)
            if struct.pack("f", candidate := float(f"{value:.{digits}g}")) == single
        ),
        float(f"{value:.9g}"),
    )


def _utf8(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Refusal("is binary data and not UTF-8 text: convert it to strings") from None


def _number(value: Decimal) -> float:
    if value.is_nan():
        return math.nan
    return int(value) if value == value.to_integral_value() else number(format(value, "f"))
