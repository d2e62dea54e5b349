"""Fields of JSON answers as columns: what `--expand` writes.

A field's type is its schema's where the batch has one, else what its values have in common.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import orjson

from db.errors import UsageError
from db.input_columns import ABSENT
from db.pages import Page
from db.records import Batch
from db.states import JobState
from db.wording import count_of

#: Columns that answers may become.
MAX_FIELDS = 1_000
#: Records without fields that a message names.
_EXAMPLES = 3
_INT64 = range(-(2**63), 2**63)
#: Integers that a float holds exactly.
_EXACT = range(-(2**53), 2**53 + 1)

_MANY_DIGITS = re.compile(r"\d{19}")


class FieldType(Enum):
    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    #: JSON text: of lists, objects, mixed types, and integers beyond 64 bits.
    JSON = "JSON"


@dataclass(frozen=True, slots=True)
class AnswerField:
    """A key of the answers, and what its values are."""

    name: str
    type: FieldType


@dataclass(slots=True)
class Expansion:
    """The fields, and which records lack them: filled while records are written."""

    fields: tuple[AnswerField, ...]
    #: Succeeded records whose text is no JSON object, or whose values are not of their types.
    lacking: int = 0
    #: Ids of the first of these.
    examples: list[str] = field(default_factory=list)
    #: Succeeded records.
    answers: int = 0
    #: Records with keys that have no column.
    with_more: int = 0

    def cells(self, page: Page) -> list[Sequence[Any]]:
        """Of each field its values; ABSENT where an answer lacks it."""
        rows = [self._row(*record) for record in _records(page)]
        return [list(column) for column in zip(*rows, strict=True)]

    def _row(self, id_: str, state: JobState, text: str | None) -> list[Any]:
        if state != JobState.SUCCEEDED:
            return [ABSENT] * len(self.fields)
        self.answers += 1
        answer = _object(text)
        row = [_cell(answer, column) for column in self.fields]
        if answer is None or _MISFIT in row:
            self.lacking += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(id_)
            row = [ABSENT if cell is _MISFIT else cell for cell in row]
        elif len(answer) > sum(cell is not ABSENT for cell in row):
            self.with_more += 1
        return row

    def remarks(self) -> list[str]:
        """What users must know, a line each."""
        lines = []
        if self.lacking:
            these = ", ".join(self.examples) + (", …" if self.lacking > len(self.examples) else "")
            lines.append(
                f"{self.lacking:,} of {self.answers:,} answers are not JSON of these fields "
                f"({these}): their columns are empty, and 'text' has what was generated"
            )
        if self.with_more:
            lines.append(
                f"{count_of(self.with_more, 'answer')} with more fields than the columns: 'text' "
                "has them"
            )
        return lines


class _Misfit(Enum):
    MISFIT = "a value that is not of its field's type"


_MISFIT = _Misfit.MISFIT


def schema_fields(batch: Batch) -> tuple[AnswerField, ...]:
    """Of the batch's JSON Schema; empty where it has none, or one without properties."""
    given = batch.params.get("response_format") or {}
    schema = (given.get("json_schema") or {}).get("schema") or {}
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping):
        return ()
    return _bounded(
        AnswerField(name, _schema_type(_resolved(part, schema)))
        for name, part in properties.items()
    )


def data_fields(pages: Iterable[Page]) -> tuple[AnswerField, ...]:
    """Of the answers themselves: every key, in the order in which they appear."""
    types: dict[str, set[FieldType]] = {}
    #: Names of fields with an integer that no float holds.
    exact: set[str] = set()
    for page in pages:
        for _, state, text in _records(page):
            answer = _object(text) if state == JobState.SUCCEEDED else None
            for name, value in (answer or {}).items():
                there = types.setdefault(name, set())
                if value is not None:
                    there.add(_type_of(value))
                    if type(value) is int and value not in _EXACT:
                        exact.add(name)
            if len(types) > MAX_FIELDS:
                raise _too_many()
    return tuple(
        AnswerField(name, _common(there, is_exact=name in exact)) for name, there in types.items()
    )


def _common(types: set[FieldType], *, is_exact: bool = False) -> FieldType:
    """The type of values of all these types."""
    if len(types) == 1:
        return next(iter(types))
    numbers = {FieldType.INTEGER, FieldType.NUMBER}
    return FieldType.NUMBER if types == numbers and not is_exact else FieldType.JSON


def _bounded(fields: Iterable[AnswerField]) -> tuple[AnswerField, ...]:
    made = tuple(fields)
    if len(made) > MAX_FIELDS:
        raise _too_many()
    return made


def _too_many() -> UsageError:
    return UsageError(
        f"--expand: the answers have more than {MAX_FIELDS:,} different fields: leave it out, and "
        "read the column 'text'"
    )


def _records(page: Page) -> Iterator[tuple[str, JobState, str | None]]:
    return zip(page.column("id"), page.column("state"), page.column("text"), strict=True)


def _object(text: str | None) -> dict[str, Any] | None:
    """The answer as an object; None where it is none."""
    try:
        answer = orjson.loads(text or "")
        if _MANY_DIGITS.search(text or ""):
            # orjson makes a float of an integer beyond 64 bits; but it checks the text, too.
            answer = json.loads(text or "")
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _cell(answer: dict[str, Any] | None, column: AnswerField) -> Any:
    if answer is None or column.name not in answer:
        return ABSENT
    value = answer[column.name]
    if value is None:
        return None
    if column.type is FieldType.JSON:
        return _dumped(value)
    return value if _fits(value, column.type) else _MISFIT


def _fits(value: Any, type_: FieldType) -> bool:
    match type_:
        case FieldType.TEXT:
            return isinstance(value, str)
        case FieldType.BOOLEAN:
            return isinstance(value, bool)
        case FieldType.INTEGER:
            return type(value) is int and value in _INT64
        case FieldType.NUMBER:
            return type(value) is float or (type(value) is int and value in _EXACT)
    return True


def _type_of(value: Any) -> FieldType:
    for type_ in (FieldType.TEXT, FieldType.BOOLEAN, FieldType.INTEGER, FieldType.NUMBER):
        if _fits(value, type_):
            return type_
    return FieldType.JSON


_SCHEMA_TYPES = {
    "string": FieldType.TEXT,
    "integer": FieldType.INTEGER,
    "number": FieldType.NUMBER,
    "boolean": FieldType.BOOLEAN,
}


def _resolved(part: Any, schema: Mapping[str, Any]) -> Any:
    """What a reference within the schema refers to; anything else as it is."""
    reference = part.get("$ref") if isinstance(part, Mapping) else None
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return part
    target: Any = schema
    for key in reference[2:].split("/"):
        target = target.get(key) if isinstance(target, Mapping) else None
    return target


def _schema_type(part: Any) -> FieldType:
    """JSON where a value may be of several types; null may always be."""
    return _common(_possible(part))


def _possible(part: Any) -> set[FieldType]:
    if not isinstance(part, Mapping):
        return {FieldType.JSON}
    for name in ("anyOf", "oneOf"):
        if name in part:
            return set().union(*map(_possible, part[name]))
    if "const" in part or "enum" in part:
        values = part.get("enum", [part.get("const")])
        return {_type_of(value) for value in values if value is not None}
    named = part.get("type", "any")
    return {
        _SCHEMA_TYPES.get(name, FieldType.JSON)
        for name in ([named] if isinstance(named, str) else named)
        if name != "null"
    }
