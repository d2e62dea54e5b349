"""Whether a table's columns can make requests, known before its first row is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from db.errors import InputError
from db.foreign_names import is_known_elsewhere
from producer.reading.keys import Names, elsewhere, nearest
from producer.reading.template import Template, no_such_column
from producer.reading.texts import shown


def columns_to_read(
    columns: Sequence[str], template: Template | None, names: Names, name: str
) -> list[str]:
    """The columns that requests are made of. Raises InputError where they don't fit."""
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if twice:
        raise InputError(f"{name}: the column {shown(twice[0])} is there twice: rename one")
    if template is None:
        _check_request_columns(columns, names, name)
        return list(columns)
    for column in template.columns:
        if column not in columns:
            raise InputError(f"{name}: {no_such_column(column, columns)}")
    return [column for column in columns if column in (*template.columns, "custom_id")]


def _check_request_columns(columns: Sequence[str], names: Names, name: str) -> None:
    how = 'or say how a row becomes a prompt, as in --template "Translate: {text}"'
    if not set(columns) & set(names.needed):
        there = ", ".join(shown(column) for column in columns[:20])
        if len(columns) == 1 and (";" in columns[0] or "\t" in columns[0]):
            how = "or separate the columns by commas (or name the file .tsv for tabs)"
        raise InputError(f"{name}: no column 'prompt' among {there}: rename one, {how}")
    for column in columns:
        # Of another system's parameter, each row's value decides.
        if column not in names.known and not is_known_elsewhere(column):
            raise InputError(
                f"{name}: the column {shown(column)} is no part of a request"
                f"{elsewhere(column, names)}: remove it, {how}; {nearest(column, names.known)}"
            )
