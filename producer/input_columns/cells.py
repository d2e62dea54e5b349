"""A value of the input to a cell of a stored row, with the name of its Arrow type. Pure."""

from __future__ import annotations

import datetime
import json
import math
import re
import uuid
from base64 import b64encode
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson

from db.exact_json import WrittenNumber, dumps
from db.input_columns import JSON

#: What 64 bits hold.
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
#: Integers of more are no longer all different as floats.
EXACT_FLOAT = 2**53


class BadCell(ValueError):
    """A value that a row cannot store; the message goes on after the column's name."""


def cell_of(value: Any) -> tuple[Any, str]:
    """The cell of a JSON or Python value, and the value's type; `null` where there is no value.

    NaN counts as no value, as data frames write a missing one. Raises BadCell.
    """
    match value:
        case None:
            return None, "null"
        case str():
            return str(value), "string"
        case bool():
            return value, "bool"
        case int():
            return _integer(int(value))
        case float():
            return _float(value)
        case dict() | list() | tuple():
            return json_cell(value), JSON
        case _:
            return _of_other_type(value)


def json_cell(value: Any) -> list[str]:
    """The cell of a value that JSON text holds: that text. Raises BadCell."""
    try:
        text = orjson.dumps(value, default=_inner).decode()
        if "null" in text:  # as which orjson writes an infinite number
            text = orjson.dumps(_with_infinities(value), default=_inner).decode()
        return [text]
    except TypeError:
        pass
    try:  # integers of more than 64 bits
        return [dumps(value).decode()]
    except TypeError:
        return [_of_any_size(value)]


def _with_infinities(value: Any) -> Any:
    """The value with texts for infinite numbers, which JSON lacks, as in a column of floats."""
    if isinstance(value, dict):
        return {key: _with_infinities(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_infinities(inner) for inner in value]
    return _float(value)[0] if type(value) is float and math.isinf(value) else value


def text_type(cell: str) -> str:
    """The type of a CSV cell's text: a number's if it is written plainly and keeps its value.

    `007` and an integer of 30 digits are text; `1.10` is the number 1.1.
    """
    if len(cell) > _LONGEST_NUMBER or not _NUMBER_STARTS.issuperset(cell[:1]):
        return "string"
    try:
        whole = int(cell)
        if str(whole) == cell and _SMALLEST <= whole <= _LARGEST:
            return "int64"
        return "string"
    except ValueError:
        pass
    try:
        number = float(cell)
    except ValueError:
        return "string"
    if repr(number) == cell:
        return "double"
    plain = _PLAIN_DECIMAL.fullmatch(cell) is not None
    return "double" if plain and Decimal(repr(number)) == Decimal(cell) else "string"


#: Characters of the longest number that 64 bits hold, as Python writes it.
_LONGEST_NUMBER = 25
_NUMBER_STARTS = frozenset("-0123456789")
_PLAIN_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+")


def _integer(value: int) -> tuple[Any, str]:
    return (value, "int64") if _SMALLEST <= value <= _LARGEST else (json_cell(value), JSON)


def _float(value: float) -> tuple[Any, str]:
    if isinstance(value, WrittenNumber):
        return (value, "double") if math.isfinite(value) else (json_cell(value), JSON)
    if math.isnan(value):
        return None, "null"
    if math.isinf(value):
        return ("Infinity" if value > 0 else "-Infinity"), "double"
    return float(value), "double"


def _of_other_type(value: Any) -> tuple[Any, str]:
    match value:
        case datetime.datetime():
            return _timestamp(value)
        case datetime.date():
            return value.isoformat(), "date32[day]"
        case datetime.time() if value.tzinfo is None:
            return value.isoformat(), "time64[us]"
        case datetime.timedelta():
            return _duration(value)
        case Decimal() if value.is_finite():
            return format(value, "f"), "decimal"
        case Decimal():
            return None, "null"
        case bytes() | bytearray() | memoryview():
            return b64encode(value).decode(), "binary"
        case uuid.UUID():
            return str(value), "string"
        case Mapping():
            return json_cell(dict(value)), JSON
    return _of_library_type(value)


def _of_library_type(value: Any) -> tuple[Any, str]:
    """Of a scalar or an array of numpy, and pandas' missing values."""
    if type(value).__name__ in ("NAType", "NaTType"):
        return None, "null"
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        plain = value.tolist()
        if str(value.dtype) in _NANOSECONDS and plain is not None:
            return _nanoseconds(value, plain)
        is_finer = value.dtype.kind in "mM" and type(plain) is int
        if not is_finer and type(plain) is not type(value):
            return cell_of(plain)
    raise BadCell(
        f"holds a value of the type {type(value).__name__}: give text, numbers, lists or dicts"
    )


#: NumPy's types whose values are integers to Python.
_NANOSECONDS = {"datetime64[ns]": "timestamp[ns]", "timedelta64[ns]": "duration[ns]"}


def _nanoseconds(value: Any, plain: Any) -> tuple[Any, str]:
    """Of a time or a duration of NumPy in nanoseconds, `plain` as Python has it."""
    type_ = _NANOSECONDS[str(value.dtype)]
    return (str(value) if type_ == "timestamp[ns]" else plain), type_


def _duration(value: Any) -> tuple[Any, str]:
    """In microseconds; of pandas, which has nanoseconds, in these."""
    if not hasattr(value, "nanoseconds"):
        return value // datetime.timedelta(microseconds=1), "duration[us]"
    try:
        return value.as_unit("ns").value, "duration[ns]"
    except (ValueError, OverflowError):
        raise BadCell("holds a duration of more than 292 years: make it a number") from None


def _timestamp(value: datetime.datetime) -> tuple[Any, str]:
    if value != value:  # pandas' NaT
        return None, "null"
    unit = "ns" if getattr(value, "nanosecond", 0) else "us"
    if value.tzinfo is None:
        return value.isoformat(), f"timestamp[{unit}]"
    text = value.astimezone(datetime.UTC).isoformat()
    return text.removesuffix("+00:00") + "Z", f"timestamp[{unit}, tz=UTC]"


def _inner(value: Any) -> Any:
    """A value within a nested one, as JSON has it."""
    if isinstance(value, WrittenNumber):
        return orjson.Fragment(value.text)
    cell, type_ = cell_of(value)
    return json.loads(cell[0]) if type_ == JSON else cell


def _of_any_size(value: Any) -> str:
    """What orjson refuses: integers of more than 64 bits. Raises BadCell for the rest."""
    try:
        text = json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_inner
        )
        text.encode()
    except UnicodeEncodeError:
        raise BadCell("has a lone surrogate: it is not valid Unicode, remove it") from None
    except BadCell:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise BadCell(f"has no form in JSON: {' '.join(str(error).split())}") from None
    return text
