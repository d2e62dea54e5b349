"""The columns of an input row, stored with its job and returned with its results.

A batch has a header (`batches.columns`): the name and type of each column, in the input's order.
A job has its row (`jobs.columns`): JSON, so that the header is stored once and a row costs its
values alone.

    [v0, v1, …]          the values of the first columns; later ones are absent
    {"0": v0, "2": v2}   the values by their index, where one before the last is absent

Absent is not null: a JSON line may lack a key, or have it with `null`. The cell of

    null, true, false    is itself
    an integer, a float  is itself if 64 bits hold it, else its JSON text in a list: ["1e400"]
    a text, a CSV cell   is a JSON string
    a list, an object    is its JSON text in a list: ["[1.10]"], so that digits stay as written
    a value of Parquet   is what JSON has for its column's type, see `InputColumn.type`

Pure, and as light to import as to send.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import orjson

from db.exact_json import WrittenNumber, dumps, loads


class Absent(Enum):
    """The type of `ABSENT`: an enum, so that a pickled one is still the same object."""

    ABSENT = "absent"

    def __bool__(self) -> bool:
        return False


#: The value of a column that the row does not have. (Null is None.)
ABSENT: Final = Absent.ABSENT

#: The type of a JSON Lines column whose values are nested, of several types, or numbers whose
#: digits no 64 bits hold.
JSON: Final = "json"


@dataclass(frozen=True, slots=True)
class InputColumn:
    """A column of a batch's input."""

    name: str
    #: The name of an Arrow type, as `str(DataType)` gives it, or `json`. The Python values of a row
    #: (`Result.columns`) are what JSON has for the type:
    #:
    #: | type | value |
    #: |---|---|
    #: | `bool`, `string`, `null` | bool, str, None |
    #: | `int8` … `int64`, `uint8` … `uint64` | int |
    #: | `halffloat`, `float`, `double` | float, NaN and infinities included |
    #: | `decimal…` | str of its digits |
    #: | `date…`, `time…`, `timestamp…` | str in ISO 8601, as precise as the type |
    #: | `duration…` | int, of the type's unit |
    #: | binary types | str in base64 |
    #: | `list<…>`, `struct<…>`, `map<…>` | lists and dicts of the above; a map is a list of pairs |
    #: | `dictionary<…>` | as its value type |
    #: | `json` | str of JSON text, with digits as the input wrote them; None for null |
    type: str
    #: Base64 of an Arrow IPC schema with this one field, where `type` alone does not define it; of
    #: ordered categories, of an IPC stream whose one batch has no row, and all categories.
    arrow: str | None = None


#: How the names of nested types begin.
_NESTED = ("list<", "large_list<", "fixed_size_list<", "struct<", "map<")


def stored_header(columns: Sequence[InputColumn]) -> list[list[str]] | None:
    """What `batches.columns` holds; None: there are no columns."""
    return [
        [column.name, column.type, *([] if column.arrow is None else [column.arrow])]
        for column in columns
    ] or None


def header_of(stored: Sequence[Sequence[str]] | None) -> tuple[InputColumn, ...]:
    """The columns that `stored_header` was given."""
    return tuple(InputColumn(*column) for column in stored or ())


def decoded_rows(
    stored: Sequence[str | None], columns: Sequence[InputColumn]
) -> list[list[Any] | None]:
    """The rows that `jobs.columns` holds, each as long as `columns`; None where it holds none."""
    width = len(columns)
    text = f"[{','.join([row or 'null' for row in stored])}]"
    parsed = loads(text) if any(map(_may_have_digits, columns)) else orjson.loads(text)
    rows = [_whole(row, width) for row in parsed]
    for index, column in enumerate(columns):
        convert = _converter(column.type)
        if convert is not None:
            for row in rows:
                if row is not None:
                    row[index] = convert(row[index])
    return rows


def _may_have_digits(column: InputColumn) -> bool:
    """Whether a cell of the column may be a number whose digits a float would change."""
    return column.type in (JSON, "double", "float", "halffloat")


def _whole(row: list[Any] | dict[str, Any] | None, width: int) -> list[Any] | None:
    """A row of the header's width."""
    if row is None:
        return None
    if isinstance(row, dict):
        whole: list[Any] = [ABSENT] * width
        for index, value in row.items():
            whole[int(index)] = value
        return whole
    if len(row) < width:
        row += [ABSENT] * (width - len(row))
    return row


def _converter(type_: str) -> Callable[[Any], Any] | None:
    """What makes a cell of this type its Python value; None: it is that already."""
    if type_ == JSON:
        return _json_text
    if type_.startswith(_NESTED):
        return _nested
    if type_.removeprefix("u").startswith("int"):
        return _integer
    return _float if type_ in ("double", "float", "halffloat") else None


def _json_text(cell: Any) -> Any:
    if type(cell) is list:
        return cell[0]
    return cell if cell is None or cell is ABSENT else dumps(cell).decode()


def _nested(cell: Any) -> Any:
    return loads(cell[0]) if type(cell) is list else cell


def _integer(cell: Any) -> Any:
    """A CSV cell is text."""
    return int(cell) if type(cell) is str else cell


def _float(cell: Any) -> Any:
    """A CSV cell is text; so are NaN and the infinities, which JSON lacks."""
    if type(cell) is not str:
        return float(cell[0]) if type(cell) is list else cell
    # Between floats, "7" is to be written as 7 again, and "1.10" as 1.10.
    if cell.removeprefix("-").isdigit():
        return int(cell)
    number = float(cell)
    return number if repr(number) == cell or not math.isfinite(number) else WrittenNumber(cell)
