"""The header of a batch's input columns, which grows while the input is read, and its rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

import orjson

from db.exact_json import dumps
from db.input_columns import JSON, InputColumn
from producer.input_columns.cells import EXACT_FLOAT, BadCell, cell_of, json_cell, text_type

#: Columns of a batch, at most.
MAX_COLUMNS = 2_000
#: Bytes of a row's stored values, at most: this, or twice those of a prompt where these are more.
MAX_ROW_BYTES = 4 * 2**20

_SIGNED = frozenset({"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"})
_TEXTS = frozenset({"string", "large_string", "string_view"})
_DICTIONARY = re.compile(r"dictionary<values=(.+), indices=u?int\d+, ordered=[01]>$")
#: Digits of the two sizes of decimals.
_DECIMALS = (("decimal128", 38), ("decimal256", 76))


class ValueKind(Enum):
    """What the values of a row are."""

    #: Cells of CSV: text, or None where empty.
    TEXT = "text"
    #: What JSON or Python gave.
    PYTHON = "python"


class InputRow(NamedTuple):
    """The values of an input row that come back with its results, by column."""

    values: Mapping[str, Any]
    #: What they are, or what each column's are: of one with an Arrow type, its values are as
    #: `arrow_cells` gives them.
    kind: ValueKind | Mapping[str, InputColumn | ValueKind]


class Header:
    """Encodes rows, and knows the columns of all that it was given."""

    def __init__(self, max_prompt_bytes: int = 0) -> None:
        self._max_row_bytes = max(MAX_ROW_BYTES, 2 * max_prompt_bytes)
        self._columns: dict[str, _Column] = {}

    @property
    def columns(self) -> tuple[InputColumn, ...]:
        """In the order in which they appeared, with types that hold every value so far."""
        return tuple(column.resolved() for column in self._columns.values())

    def encoded(self, row: InputRow) -> str:
        """The row as `jobs.columns` stores it. Raises BadCell, whose message is whole."""
        present: list[int] = []
        cells: list[Any] = []
        for name, value in row.values.items():
            column = self._columns.get(name) or self._new(name)
            try:
                kind = row.kind if isinstance(row.kind, ValueKind) else row.kind[name]
                cells.append(column.cell(value, kind))
            except BadCell as bad:
                raise BadCell(f"column '{name}' {bad}") from None
            present.append(column.index)
        try:
            stored = dumps(_placed(present, cells))
        except TypeError:  # a lone surrogate
            raise BadCell(_unencodable(row.values)) from None
        if len(stored) > self._max_row_bytes:
            raise BadCell(
                f"its columns take {len(stored):,} bytes, more than {self._max_row_bytes:,}: "
                "remove some, or raise PROMPTMILL_MAX_PROMPT_BYTES"
            )
        return stored.decode()

    def _new(self, name: str) -> _Column:
        if len(self._columns) >= MAX_COLUMNS:
            raise BadCell(
                f"its column '{name[:60]}' is one more than the {MAX_COLUMNS:,} columns that a "
                "batch may have: give such data as one nested column"
            )
        if "\0" in name:
            raise BadCell("a column's name has a NUL character: rename it")
        column = self._columns[name] = _Column(name, len(self._columns))
        return column


def _placed(present: list[int], cells: list[Any]) -> list[Any] | dict[str, Any]:
    """The cells at their columns' indexes: a list unless one is absent in between."""
    count = len(present)
    if present == list(range(count)):
        return cells
    by_index = dict(zip(present, cells, strict=True))
    if max(by_index) == count - 1:
        return [by_index[index] for index in range(count)]
    return {str(index): by_index[index] for index in sorted(by_index)}


def _unencodable(values: Mapping[str, Any]) -> str:
    for name, value in values.items():
        try:
            orjson.dumps([name, value if isinstance(value, str) else None])
        except TypeError:
            return f"column {name!a} has a lone surrogate: it is not valid Unicode, remove it"
    return "a column has no form in JSON: remove it"


class _Column:
    """What is known of one column's values."""

    __slots__ = (
        "_categories", "_differs", "_digits", "_largest", "_limit", "_text", "_types", "index",
        "name",
    )  # fmt: skip

    def __init__(self, name: str, index: int) -> None:
        self.name = name
        self.index = index
        #: Types of its values, each with what `InputColumn.arrow` says of it.
        self._types: dict[str, str | None] = {}
        #: Whether of one type, `InputColumn.arrow` says different things.
        self._differs = False
        #: Categories that its indices can tell apart, where these are small, and those it has, at
        #: most one more than that: several files may have others each.
        self._limit: int | None = None
        self._categories: set[Any] = set()
        #: The largest integer among them.
        self._largest = 0
        #: Decimal digits before and after the point.
        self._digits = (0, 0)
        #: Type of its CSV cells so far.
        self._text: str | None = None

    def cell(self, value: Any, kind: ValueKind | InputColumn) -> Any:
        if kind is ValueKind.TEXT:
            if value is not None and self._text != "string":
                self._add_text(value)
            elif self._text is None:
                self._text = "empty"
            return value
        if kind is ValueKind.PYTHON:
            if type(value) is str:
                self._types["string"] = None
                return value
            return self._python(value)
        if kind.type not in self._types:
            self._types[kind.type] = kind.arrow
            self._set_limit(kind.type)
        elif self._types[kind.type] != kind.arrow:
            self._differs = True
        if self._limit is not None and value is not None and len(self._categories) <= self._limit:
            self._categories.add(value if value.__hash__ else str(value))
        if type(value) is int and abs(value) > self._largest:
            self._largest = abs(value)
        return json_cell(value) if type(value) in (list, dict) else value

    def _set_limit(self, type_: str) -> None:
        if type_.startswith("dictionary<"):
            from producer.input_columns.arrow_types import index_limit

            self._limit = index_limit(type_)

    def _python(self, value: Any) -> Any:
        cell, type_ = cell_of(value)
        self._types[type_] = None
        if type_ == "int64" and abs(cell) > self._largest:
            self._largest = abs(cell)
        elif type_ == "decimal":
            whole, _, fraction = cell.lstrip("-").partition(".")
            self._digits = max(self._digits[0], len(whole)), max(self._digits[1], len(fraction))
        return cell

    def _add_text(self, value: str) -> None:
        type_ = text_type(value)
        if type_ == "int64":
            self._largest = max(self._largest, abs(int(value)))
        if self._text in (None, "empty", type_):
            self._text = type_
        elif type_ == "string" or self._text == "string":
            self._text = "string"
        else:  # integers beside floats
            self._text = "double"

    def resolved(self) -> InputColumn:
        """The column with a type that holds all its values."""
        types = dict(self._types)
        if self._text == "double" and self._largest > EXACT_FLOAT:
            types["string"] = None
        elif self._text is not None:
            types["string" if self._text == "empty" else self._text] = None
        if len(types) > 1:
            types.pop("null", None)
        if len(types) == 1:
            ((type_, arrow),) = types.items()
            column = InputColumn(self.name, self._decimal() if type_ == "decimal" else type_, arrow)
            return self._of_categories(column) if type_.startswith("dictionary<") else column
        values = {found[1] if (found := _DICTIONARY.match(type_)) else type_ for type_ in types}
        if len(values) == 1 and all(map(_DICTIONARY.match, types)):
            from producer.input_columns.arrow_types import with_large_indices

            type_, arrow = next(iter(types.items()))
            return with_large_indices(InputColumn(self.name, type_, arrow))
        return InputColumn(self.name, self._common(frozenset(values)))

    def _of_categories(self, column: InputColumn) -> InputColumn:
        """The column, with indices for all of its categories, and their order if they have one."""
        from producer.input_columns.arrow_types import with_large_indices, without_order

        if self._limit is not None and len(self._categories) > self._limit:
            return with_large_indices(column)
        return without_order(column) if self._differs else column

    def _common(self, types: frozenset[str]) -> str:
        """A type for values of several."""
        if types <= _SIGNED:
            return "int64"
        if types <= _TEXTS:
            return "string"
        if types <= {*_SIGNED, "float", "double"} and self._largest <= EXACT_FLOAT:
            return "double"
        return JSON

    def _decimal(self) -> str:
        whole, scale = self._digits
        for name, precision in _DECIMALS:
            if whole + scale <= precision:
                return f"{name}({precision}, {scale})"
        return "string"
