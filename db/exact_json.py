"""JSON that is read and written without a loss: each number keeps its digits, no key is dropped.

    loads(b'{"price": 1.10}')       a float that is written back as 1.10
    loads(b'{"a": 1, "a": 2}')      BrokenJson: the key 'a' is given twice

Used wherever JSON of users is decoded, stored or encoded. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from itertools import chain
from typing import Any, Literal

import jiter
import orjson

#: Levels of nesting that are read, at most (a bound of jiter's).
MAX_DEPTH = 200

#: Characters of a key that a message shows.
_SHOWN = 60

_POSITION = re.compile(r" at line \d+ column (\d+)$")
_DUPLICATE = re.compile(r'Detected duplicate key "(.*)"', re.DOTALL)
#: jiter reads it as the integer 0.
_NEGATIVE_ZERO = re.compile(rb"(?:^|[\[:,\s])-0(?![.\deE])")
_parse = partial(
    jiter.from_json,
    allow_inf_nan=False,
    cache_mode="keys",
    catch_duplicate_keys=True,
    float_mode="lossless-float",
)
#: Integers that orjson writes itself.
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1


class WrittenNumber(float):
    """A number that Python would write with other digits: 1.10, 1e5, 1e400, -0.

    It computes as the nearest float (1e400 is infinite), and its text is what stood in the JSON.
    """

    __slots__ = ("text",)

    #: As in the JSON.
    text: str

    def __new__(cls, text: str) -> WrittenNumber:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override] # float's is typed narrower
        return (self.text,)

    def as_decimal(self) -> Decimal:
        """Its exact value."""
        return Decimal(self.text)


#: What is wrong with a text: it is no JSON, it repeats a key, it has half of a surrogate pair, or
#: a number or the nesting goes beyond what can be read.
Kind = Literal["syntax", "duplicate key", "surrogate", "too large"]


class BrokenJson(ValueError):
    """Text that is no JSON, or JSON that can't be read without a loss."""

    def __init__(self, reason: str, column: int, kind: Kind = "syntax") -> None:
        super().__init__(reason, column, kind)
        self.reason = reason
        #: From 1.
        self.column = column
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.reason} (column {self.column})"


def loads(text: bytes | str) -> Any:
    """The value of a JSON text. Raises BrokenJson, also for an object that repeats a key."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        value = _parse(data)
    except ValueError as error:
        raise _broken(data, str(error)) from None
    if type(value) is dict:
        for inner in value.values():
            if type(inner) is not str:
                break
        else:
            return value
    if b"-0" in data and _NEGATIVE_ZERO.search(data):
        return _DECODER.decode(data.decode())
    return _with_numbers(value)


def loads_flat(lines: Sequence[bytes]) -> list[dict[str, str]] | None:
    """The values of whole lines, each an object whose values are all strings; else None.

    None only means that each line needs `loads`. This takes less than half of its time.
    """
    text = b"[%b]" % b",".join(lines)
    if not text.startswith(b"[{") or text.count(b"\n,{") != len(lines) - 1 or b'\\"' in text:
        return None
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    # A JSON string has no raw line end, so every line begins a new object; as no object is inside
    # another, as many values as lines means one for each line.
    if len(values) != len(lines) or set(map(type, values)) != {dict}:
        return None
    kinds = set(map(type, chain.from_iterable(map(dict.values, values))))
    # Each pair of key and value has four quotation marks; a repeated key would leave more.
    pairs = sum(map(len, values))
    return values if kinds <= {str} and text.count(b'"') == 4 * pairs else None


def loads_first(text: str) -> tuple[Any, int]:
    """The value that a text begins with, and where it ends. Raises ValueError, RecursionError.

    For what models write: a text may hold control characters as they are.
    """
    value, end = _LENIENT.raw_decode(text)
    return value, end


def dumps(value: Any, *, sort_keys: bool = False) -> bytes:
    """The value as compact JSON, numbers with the digits that `loads` read.

    Raises TypeError for what JSON has no form for.
    """
    option = orjson.OPT_SORT_KEYS if sort_keys else 0
    try:
        return orjson.dumps(value, fragment, option)
    except TypeError:
        return orjson.dumps(_with_fragments(value), fragment, option)


def number(text: str) -> float:
    """The float that a JSON number stands for; a WrittenNumber where a float loses digits."""
    plain = float(text)
    return plain if repr(plain) == text and "e" not in text else WrittenNumber(text)


def _integer(text: str) -> float:
    return WrittenNumber(text) if text == "-0" else int(text)


_DECODER = json.JSONDecoder(parse_float=number, parse_int=_integer)
_LENIENT = json.JSONDecoder(parse_float=number, parse_int=_integer, strict=False)


#: What may be a number of jiter's, or hold one.
_CHANGED = frozenset((dict, list, jiter.LosslessFloat))


def _with_numbers(value: Any) -> Any:
    """The value with Python's numbers in place of jiter's; changed in place."""
    kind = type(value)
    if kind is dict:
        for key, inner in value.items():
            if type(inner) in _CHANGED:
                value[key] = _with_numbers(inner)
    elif kind is list:
        for index, inner in enumerate(value):
            if type(inner) in _CHANGED:
                value[index] = _with_numbers(inner)
    elif kind is jiter.LosslessFloat:
        return number(str(value))
    return value


def _broken(data: bytes, reason: str) -> BrokenJson:
    at = _POSITION.search(reason)
    column = int(at[1]) if at else 1
    if duplicate := _DUPLICATE.match(reason):
        key = duplicate[1] if len(duplicate[1]) <= _SHOWN else duplicate[1][:_SHOWN] + "..."
        return BrokenJson(f"the key {key!a} is given twice", column, "duplicate key")
    if reason.startswith("recursion limit"):
        return BrokenJson(f"it is nested deeper than {MAX_DEPTH} levels", column, "too large")
    if reason.startswith("number out of range"):
        return BrokenJson("a number has more than 4,300 digits", column, "too large")
    try:
        orjson.loads(data.rstrip())
    except orjson.JSONDecodeError as error:  # its reasons are the clearer ones
        kind: Kind = "surrogate" if "surrogate" in error.msg else "syntax"
        return BrokenJson(error.msg, error.colno, kind)
    return BrokenJson(_POSITION.sub("", reason), column)


def fragment(value: Any) -> orjson.Fragment:
    """What orjson's `default` needs to write numbers with their digits."""
    if isinstance(value, WrittenNumber):
        return orjson.Fragment(value.text)
    raise TypeError(f"Type is not JSON serializable: {type(value).__name__}")


def _with_fragments(value: Any) -> Any:
    """A copy in which integers of more than 64 bits are as orjson takes them."""
    if isinstance(value, dict):
        return {key: _with_fragments(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_fragments(inner) for inner in value]
    if isinstance(value, int) and not _SMALLEST <= value <= _LARGEST:
        return orjson.Fragment(str(value))
    return value
