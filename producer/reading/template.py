"""A prompt template with the columns of a row as its fields: `Translate: {text}`.

Rows are data of unknown origin, so a field is a column's plain name and nothing else: a
template is split once and filled by look-up, never by `str.format`, and no attribute, index,
conversion or format can be reached.
"""

from __future__ import annotations

import datetime
import math
import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from db.errors import UsageError
from producer.reading.texts import LineFaults, Refusal, check_text, kind, shown

#: The only column of a row that is a bare text: a line of a .txt file, a JSON string.
TEXT_COLUMN = "text"


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template; make one with `Template.parse`."""

    #: Literal text, each piece followed by the column to put behind it; None: nothing.
    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str, *, columns_needed: bool = True) -> Template:
        """Split `text` into literals and columns; `{{` and `}}` stand for braces.

        Raises UsageError for anything in braces that is not a column's plain name, and, unless
        no `columns_needed`, for a template without any column.
        """
        try:
            check_text(text, "the template")
            parts = _parts(text)
        except (ValueError, Refusal) as error:
            reasons = error.faults if isinstance(error, Refusal) else (str(error),)
            raise UsageError(
                *(
                    f"template {shown(text)}: {reason}: write columns as {{name}}, a brace as {{{{"
                    for reason in reasons
                )
            ) from None
        if columns_needed and all(column is None for _, column in parts):
            raise UsageError(
                f"template {shown(text)}: it names no column, so that every prompt would be "
                "the same: write columns as {name}"
            )
        return cls(parts)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it names, each once, in order."""
        return tuple(dict.fromkeys(column for _, column in self.parts if column is not None))

    def render(self, row: Mapping[str, Any]) -> str:
        """The prompt for one row; Refusal for a column that is missing, empty or not plain."""
        return "".join(
            literal if column is None else literal + _cell(row, column)
            for literal, column in self.parts
        )


def _parts(text: str) -> tuple[tuple[str, str | None], ...]:
    """Raises ValueError for unpaired braces, and Refusal with every field that is no column."""
    faults = LineFaults()
    parts = [faults.of(_part, *piece) for piece in string.Formatter().parse(text)]
    faults.raise_all()
    return tuple(part for part in parts if part is not None)


def _part(
    literal: str, name: str | None, spec: str | None, conversion: str | None
) -> tuple[str, str | None]:
    if name is None:
        return literal, None
    if not name:
        raise Refusal("{} names no column")
    if spec or conversion or any(sign in name for sign in ".[]{}"):
        raise Refusal(f"{{{name}...}} is more than a column's plain name")
    return literal, name


def _cell(row: Mapping[str, Any], column: str) -> str:
    """One cell as text. An empty cell counts as missing: a CSV file has no other NULL."""
    if column not in row:
        raise Refusal(no_such_column(column, row))
    value = row[column]
    if value is None or value == "" or _is_nan(value):
        raise Refusal(f"column '{column}' is empty: the template needs a value, fill or skip it")
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise Refusal(f"column '{column}' is {kind(value)}: a template takes text and numbers")


def _is_nan(value: object) -> bool:
    """Data frames write a missing number as NaN."""
    return isinstance(value, float | Decimal) and math.isnan(value)


def no_such_column(column: str, existing: Collection[str]) -> str:
    """That a template's column isn't there, and which are."""
    names = ", ".join(shown(name) for name in list(existing)[:20]) or "none"
    return f"no column {shown(column)} for the template: there are {names}"
