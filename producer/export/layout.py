"""Which columns a file has, in which order and under which names. Pure.

Input columns come first and keep their names. A name of ours that one of them has gets a prefix:
`text` becomes `promptmill_text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from db.errors import UsageError
from db.input_columns import InputColumn
from db.records import Batch
from producer.export.answer_fields import AnswerField, Expansion
from producer.export.record_columns import (
    DOCUMENTS,
    RECORD_COLUMNS,
    TABLES,
    Part,
    RecordColumn,
    written_columns,
)
from producer.reading.texts import shown

PREFIX = "promptmill_"


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """What users ask of a record."""

    #: With what made each record, besides the file's metadata.
    provenance: bool = False
    with_prompt: bool = False
    #: Names of the input columns to write; None: all of them.
    input_columns: Sequence[str] | None = None
    #: Names of ours -> the names that they are written under.
    names: Mapping[str, str] = field(default_factory=dict)
    #: Fields of JSON answers become columns.
    expand: bool = False


@dataclass(frozen=True, slots=True)
class InputSource:
    """A column of the input, by its index in `Batch.input_columns`."""

    index: int
    column: InputColumn


@dataclass(frozen=True, slots=True)
class FieldSource:
    """A field of the answers, by its index in `Expansion.fields`."""

    index: int
    field: AnswerField


@dataclass(frozen=True, slots=True)
class OutputColumn:
    name: str
    source: RecordColumn | InputSource | FieldSource


@dataclass(frozen=True, slots=True)
class Layout:
    columns: tuple[OutputColumn, ...]
    expansion: Expansion | None = None
    #: Names that clashed with the input's -> what they are written as.
    prefixed: Mapping[str, str] = field(default_factory=dict)

    def remarks(self, renaming: str = "--output-column renames it") -> list[str]:
        """What users must know of the names, a line each; `renaming`: how to choose another."""
        if not self.prefixed:
            return []
        ours = ", ".join(f"'{old}' is written as '{new}'" for old, new in self.prefixed.items())
        return [f"{ours}, as the input has a column of that name: {renaming}"]


def layout_of(
    batch: Batch | None,
    options: RecordOptions,
    *,
    documents: bool,
    expansion: Expansion | None = None,
) -> Layout:
    """The columns of a batch's records. Raises UsageError for names that do not exist or clash.

    `documents`: of JSON Lines, where values nest; else of a table.
    """
    ours = written_columns(
        batch,
        provenance=options.provenance,
        with_prompt=options.with_prompt,
        documents=documents,
    )
    check_names(options, documents=documents)
    given = _input_sources(batch.input_columns if batch is not None else (), options)
    columns = [OutputColumn(source.column.name, source) for source in given]
    taken = {column.name for column in columns}
    prefixed: dict[str, str] = {}
    fields = expansion.fields if expansion is not None else ()
    sources: Iterable[tuple[str, RecordColumn | FieldSource]] = (
        *((column.name, column) for column in ours),
        *((part.name, FieldSource(index, part)) for index, part in enumerate(fields)),
    )
    for name, source in sources:
        written = name
        if isinstance(source, RecordColumn) and name in options.names:
            written = options.names[name]
            if written in taken:
                raise UsageError(
                    f"--output-column {name}={written}: another column has the name "
                    f"'{written}': choose another one"
                )
        while written in taken:
            written = PREFIX + written
        if written != options.names.get(name, name):
            prefixed[name] = written
        taken.add(written)
        columns.append(OutputColumn(written, source))
    return Layout(tuple(columns), expansion, prefixed)


def check_names(options: RecordOptions, *, documents: bool) -> None:
    """Raise UsageError with every one of `names` that does not exist, or clashes when renamed.

    A column that is only written where there is something in it may be named all the same.
    """
    kept = {column.name for column in RECORD_COLUMNS} - options.names.keys()
    new_names = list(options.names.values())
    faults = []
    for name, new in options.names.items():
        reason = None
        if not new.strip():
            reason = "give a name behind the '='"
        elif (column := next((one for one in RECORD_COLUMNS if one.name == name), None)) is None:
            reason = _unknown(name, new)
        elif column.only == (TABLES if documents else DOCUMENTS):
            reason = "JSON Lines have it as 'error'" if documents else "only JSON Lines have it"
        elif column.part is Part.PROVENANCE and not options.provenance and name != "sample":
            reason = "it is only written with --provenance"
        elif new in kept or new_names.count(new) > 1:
            reason = f"another column has the name '{new}': choose another one"
        if reason is not None:
            faults.append(f"--output-column {name}={new}: {reason}")
    if faults:
        raise UsageError(*faults)


def _unknown(name: str, new: str) -> str:
    """What is wrong with the name of a column that does not exist."""
    known = [column.name for column in RECORD_COLUMNS]
    if new in known:
        return f"it is OLD=NEW: did you mean {new}={name}?"
    return f"there is no column {shown(name)}: it is one of {', '.join(known)}"


def _input_sources(columns: Sequence[InputColumn], options: RecordOptions) -> list[InputSource]:
    sources = [InputSource(index, column) for index, column in enumerate(columns)]
    if options.input_columns is None:
        return sources
    by_name = {source.column.name: source for source in sources}
    there = f"it has {', '.join(by_name)}" if by_name else "it has none"
    missing = [name for name in options.input_columns if name not in by_name]
    if missing:
        raise UsageError(
            *(
                f"--columns: {shown(name)} is no column of the batch's input: {there}"
                for name in missing
            )
        )
    return [by_name[name] for name in dict.fromkeys(options.input_columns)]
