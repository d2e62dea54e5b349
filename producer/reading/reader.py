"""Sources to requests: find, open, tell the format, decode, validate; one item at a time."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack, cast, get_args

from db.errors import InputError, UsageError
from db.faults import Faults
from db.modes import Mode
from producer.input_columns.header import Header
from producer.reading import formats
from producer.reading.columns import TableRules, check_columns
from producer.reading.csv_table import csv_items
from producer.reading.formats import Format
from producer.reading.jsonl import jsonl_items
from producer.reading.lines import BadLine, Line
from producer.reading.mode_choice import DeferredParser, ModeChoice
from producer.reading.parquet_table import parquet_items
from producer.reading.plain import text_items
from producer.reading.records import Dialect, Quoting
from producer.reading.requests import RequestParser
from producer.reading.row_prompt import RowPrompt
from producer.reading.sources import Source, find, reading
from producer.reading.streams import (
    BrokenStream,
    chunks,
    compression_of,
    decompress,
    peek,
    spool,
)
from producer.reading.template import TEXT_COLUMN
from producer.reading.texts import DEFAULT_MAX_PROMPT_BYTES, shown

if TYPE_CHECKING:
    from producer.reading.tables import Table

#: What a number counts, in messages.
_UNITS: dict[Format, str] = {
    "jsonl": "line",
    "txt": "line",
    "csv": "record",
    "tsv": "record",
    "parquet": "row",
}


#: Of the tables in text, unless the caller says otherwise.
_DIALECTS: dict[Format, Dialect] = {"csv": Dialect(",", "csv"), "tsv": Dialect("\t", "none")}


class ReadingOptions(TypedDict, total=False):
    """How every request of a batch is read."""

    #: What makes prompts of rows, and the system message of their chats.
    template: str | None
    system: str | None
    #: Whether `template` makes chats.
    chat: bool
    #: Of a batch whose mode the first request may decide, in place of `mode` and `defaults`.
    choice: ModeChoice
    #: The batch's parameters as `db.sampling.normalise` returned them: a line's own are validated
    #: together with them.
    defaults: Mapping[str, Any] | None
    max_prompt_bytes: int
    mode: Mode
    #: Keys and columns that are data, whatever they are called.
    columns: Collection[str]


#: What makes requests of items.
_Parser = RequestParser | DeferredParser


class _Way(NamedTuple):
    """How the caller wants the sources to be read; None: as the source itself says."""

    format: Format | None
    quoting: Quoting | None


def read(
    sources: Sequence[str | os.PathLike[str]],
    *,
    format: str | None = None,  # noqa: A002 - the option's name
    quoting: str | None = None,
    header: Header | None = None,
    **options: Unpack[ReadingOptions],
) -> Iterator[Line | BadLine]:
    """Every request of the sources, in order, in constant memory.

    A source is a path, a glob, a URL or '-'. `format` overrides what the names say; `quoting` says
    what quotes mean in CSV (`csv`, unless given) and TSV (`none`); `header` gets the columns of all
    lines. Warns (InputWarning) where a file may mean something else than what is read. Raises
    UsageError for a bad template or format and InputError for a source that isn't there, at once
    and all together; InputError while reading for a file that is empty, binary, cut off, or has not
    the template's columns.
    """
    faults = Faults()
    found = faults.of(find, sources)
    parser: _Parser | None = faults.of(_parser, options, header)
    forced = None if format is None else faults.of(formats.by_word, format)
    way = _Way(forced, None if quoting is None else faults.of(_quoting, quoting))
    return _read_all(faults.checked(found), cast(_Parser, faults.checked(parser)), way)


def parse(
    item: object,
    *,
    source: str,
    number: int,
    unit: str = "item",
    **options: Unpack[ReadingOptions],
) -> Line | BadLine:
    """One request that is decoded already: a text, or a mapping as a JSON line would hold.

    `unit` is what `number` counts, for messages. Raises UsageError for a bad template only.
    """
    return _parser(options).parse(item, source, number, unit)


def parse_all(
    items: Iterable[object], *, header: Header | None = None, **options: Unpack[ReadingOptions]
) -> Iterator[Line | BadLine]:
    """As `parse`, for every item of a stream, numbered from 1; a bad template raises at once."""
    parser = _parser(options, header)
    return (
        parser.parse(item, "<items>", number, "item") for number, item in enumerate(items, start=1)
    )


def parse_table(
    table: Table, *, header: Header | None = None, **options: Unpack[ReadingOptions]
) -> Iterator[Line | BadLine]:
    """As `parse_all`, for the rows of a table. Raises InputError for columns that don't fit."""
    parser = _parser(options, header)
    return _rows(table, parser)


def _rows(table: Table, parser: _Parser) -> Iterator[Line | BadLine]:
    from producer.reading.tables import NAME

    for number, row in table.items(parser.rules):
        yield parser.parse(row, NAME, number, "row")


def _parser(options: ReadingOptions, header: Header | None = None) -> _Parser:
    template = RowPrompt.parse(
        options.get("template"), options.get("system"), chat=options.get("chat", False)
    )
    columns = options.get("columns", ())

    def of_mode(mode: Mode, defaults: Mapping[str, Any] | None) -> RequestParser:
        limit = options.get("max_prompt_bytes", DEFAULT_MAX_PROMPT_BYTES)
        return RequestParser(template, defaults, limit, mode, header=header, columns=columns)

    choice = options.get("choice")
    if choice is None:
        return of_mode(options.get("mode", Mode.GENERATE), options.get("defaults"))
    if choice.mode is not None:
        return of_mode(choice.mode, choice.defaults)
    return DeferredParser(choice, of_mode, columns)


def _quoting(word: str) -> Quoting:
    for known in get_args(Quoting):
        if word == known:
            return known  # type: ignore[no-any-return] # one of Quoting's
    raise UsageError(f"quoting {shown(word)} is unknown: use csv or none")


def _read_all(found: Sequence[Source], parser: _Parser, way: _Way) -> Iterator[Line | BadLine]:
    total = 0
    for source in found:
        before = total
        for request in _read_one(source, parser, way):
            total += 1
            yield request
        if total == before and source.named:
            raise InputError(f"{source.name}: is empty: give it at least one request")
    if not total:
        raise InputError(f"{found[0].name}: is empty, like every file that matches: check them")


def _read_one(source: Source, parser: _Parser, way: _Way) -> Iterator[Line | BadLine]:
    name = source.name
    with reading(name), source.open() as raw:
        format_, items = _decode(source, raw, parser, way)
        unit = _UNITS[format_]
        for number, item in items:
            yield parser.parse(item, name, number, unit)


def _decode(
    source: Source, raw: IO[bytes], parser: _Parser, way: _Way
) -> tuple[Format, Iterator[tuple[int, object]]]:
    """The source's format, and its numbered items."""
    name = source.name
    suffix, packing = formats.by_name(source.path)
    head, stream = peek(chunks(raw))
    packing = packing or compression_of(head)
    if packing is not None:
        head, stream = peek(decompress(stream, packing))
    format_ = way.format or formats.by_content(name, suffix, head)
    if way.quoting is not None and format_ not in _DIALECTS:
        raise InputError(f"{name}: --quoting is for csv and tsv, and this is {format_}: omit it")
    match format_:
        case "jsonl":
            return format_, jsonl_items(stream, name)
        case "txt":
            _check_text_template(parser.template, name)
            return format_, text_items(stream, name)
        case "csv" | "tsv":
            dialect = _DIALECTS[format_]
            if way.quoting is not None:
                dialect = Dialect(dialect.delimiter, way.quoting, guessed=False)
            return format_, csv_items(stream, name, dialect, parser.rules)
        case "parquet":
            in_place = raw if packing is None and raw.seekable() else None
            return format_, _parquet(in_place, stream, name, parser.rules)


def _check_text_template(template: RowPrompt | None, name: str) -> None:
    if template is not None:
        check_columns(template, (TEXT_COLUMN,), name)


def _parquet(
    file: IO[bytes] | None,
    stream: Iterator[bytes],
    name: str,
    rules: TableRules,
) -> Iterator[tuple[int, object]]:
    """Parquet is read from its end: what can't be sought goes to a temporary file first."""
    if file is not None:
        file.seek(0)
        yield from parquet_items(file, name, rules)
        return
    try:
        spooled = spool(stream)
    except BrokenStream as broken:
        raise broken.in_file(name) from None
    with spooled:
        yield from parquet_items(spooled, name, rules)
