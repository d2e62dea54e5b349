"""Whether a table's columns can make requests, known before its first row is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from db.errors import InputError
from producer.reading.keys import PARAMETER_NAMES, REQUEST_KEYS, nearest
from producer.reading.template import Template, no_such_column
from producer.reading.texts import shown

_USABLE = (*REQUEST_KEYS, *sorted(PARAMETER_NAMES))


def columns_to_read(columns: Sequence[str], template: Template | None, name: str) -> list[str]:
    """The columns that requests are made of. Raises InputError where they don't fit."""
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if twice:
        raise InputError(f"{name}: the column {shown(twice[0])} is there twice: rename one")
    if template is None:
        _check_request_columns(columns, name)
        return list(columns)
    for column in template.columns:
        if column not in columns:
            raise InputError(f"{name}: {no_such_column(column, columns)}")
    return [column for column in columns if column in (*template.columns, "custom_id")]


def _check_request_columns(columns: Sequence[str], name: str) -> None:
    how = 'or say how a row becomes a prompt, as in --template "Translate: {text}"'
    if "prompt" not in columns and "messages" not in columns:
        names = ", ".join(shown(column) for column in columns[:20])
        if len(columns) == 1 and (";" in columns[0] or "\t" in columns[0]):
            how = "or separate the columns by commas (or name the file .tsv for tabs)"
        raise InputError(f"{name}: no column 'prompt' among {names}: rename one, {how}")
    for column in columns:
        if column not in _USABLE:
            raise InputError(
                f"{name}: the column {shown(column)} is no part of a request: "
                f"remove it, {how}; {nearest(column, _USABLE)}"
            )
