"""From what a user hands over to lines that can be submitted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from io import IOBase
from itertools import chain
from os import PathLike
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Unpack

from db.errors import UsageError
from db.modes import Mode
from producer.input_columns.header import Header
from producer.reading import BadLine, Line, ReadingOptions, parse_all, parse_table, read
from producer.reading.mode_choice import ModeChoice

if TYPE_CHECKING:
    from producer.reading.tables import Table

#: A path, URL or glob of a prompt file; a table of any library that speaks Arrow; or prompts
#: (text) and requests (mappings) themselves.
Source = str | PathLike[str] | Iterable[Any] | Any

_ACCEPTED = (
    "give a path, URL or glob of a file, a table (pandas, polars, pyarrow, datasets), or a list or "
    "generator of texts and dicts"
)

#: No tables, which saves a look.
_PLAIN = (list, tuple, Mapping, GeneratorType)
#: Iterables whose items are no prompts, or come in no order.
_REFUSED = (bytes, bytearray, memoryview, Set, IOBase)


@dataclass(frozen=True, slots=True)
class Reading:
    """Lines that are being read, and the header of their columns, whole once they are read."""

    lines: Iterator[Line | BadLine]
    header: Header


@dataclass(frozen=True, slots=True)
class Lines:
    """A stream of lines."""

    #: Begins to read; call it again only if they are `repeatable`.
    read: Callable[[], Reading]
    repeatable: bool


def from_files(
    names: list[str],
    *,
    given_format: str | None,
    quoting: str | None = None,
    **options: Unpack[ReadingOptions],
) -> Lines:
    """The lines of files, one after the other; `-` is standard input, and can be read once."""

    def begin() -> Reading:
        header = _header(options)
        lines = read(names, format=given_format, quoting=quoting, header=header, **options)
        return Reading(lines, header)

    return Lines(begin, repeatable="-" not in names)


def from_source(
    source: Source,
    *,
    given_format: str | None,
    quoting: str | None = None,
    **options: Unpack[ReadingOptions],
) -> Lines:
    """The lines of a file, of a table, or of an iterable of prompts and requests.

    A mapping is one request. Raises TypeError for anything else, which says what is accepted.
    """
    if isinstance(source, str | PathLike):
        return from_files([str(source)], given_format=given_format, quoting=quoting, **options)

    table = None if isinstance(source, _PLAIN) else _table_of(source)
    if table is not None:
        return Lines(lambda: _of_table(table, options), table.repeatable)
    items = _items_of(source, by_template=options.get("template") is not None)
    return Lines(lambda: _of_items(items, options), isinstance(items, list | tuple))


def _table_of(source: Any) -> Table | None:
    from producer.reading.tables import table_of

    return table_of(source)


def _of_table(table: Table, options: ReadingOptions) -> Reading:
    header = _header(options)
    return Reading(parse_table(table, header=header, **options), header)


def _of_items(items: Iterable[Any], options: ReadingOptions) -> Reading:
    header = _header(options)
    return Reading(parse_all(items, header=header, **options), header)


def _items_of(source: Any, *, by_template: bool) -> Iterable[Any]:
    """Prompts and requests. Raises TypeError for what holds none, or has no order."""
    name = type(source).__name__
    if isinstance(source, Mapping):
        if by_template or any(key in source for key in ("prompt", "messages", "text", "body")):
            return [source]
        raise TypeError(
            f"a {name} without 'prompt' or 'messages' is no request; for a dict of columns give "
            f"pyarrow.table(it): {_ACCEPTED}"
        )
    is_frame = hasattr(source, "columns") and hasattr(source, "dtypes")
    is_arrow = type(source).__module__.startswith("pyarrow.")
    if is_frame or is_arrow or isinstance(source, _REFUSED) or not isinstance(source, Iterable):
        raise TypeError(f"a {name} can't be submitted: {_ACCEPTED}")
    return source


def _header(options: ReadingOptions) -> Header:
    return Header(options["max_prompt_bytes"])


def with_mode(lines: Lines, choice: ModeChoice) -> tuple[Mode, Lines]:
    """The batch's mode, for which the first line is read unless it is known; the lines, whole.

    Without any line it is `generate`. Raises ParameterError, and InputError as reading does.
    """
    if choice.mode is None:
        _, lines = _begun(lines)
    return choice.mode or Mode.GENERATE, lines


def model_of_first(lines: Lines, adapters: Collection[str] = ()) -> tuple[str, Lines]:
    """The model that the first line names, as in OpenAI's files; and the lines, whole again.

    `adapters`: names that are no model's.
    """
    first, lines = _begun(lines)
    return _model_of(first, adapters), lines


def look(reading: Reading, model: str | None, adapters: Collection[str] = ()) -> None:
    """Read the first line, to find what is wrong with a file or with its columns.

    Raises InputError, and UsageError where neither `model` nor that line names a model.
    """
    first = next(reading.lines, None)
    if model is None and not isinstance(first, BadLine):
        _model_of(first, adapters)


def begun(reading: Reading, lines: Lines) -> Lines:
    """`lines`, of which `reading` is the first reading."""
    readings = [reading]
    return Lines(lambda: readings.pop() if readings else lines.read(), lines.repeatable)


def _model_of(first: Line | BadLine | None, adapters: Collection[str]) -> str:
    if isinstance(first, BadLine):
        raise UsageError(
            f"{first.message}; with --model, or PROMPTMILL_MODEL, you are told of all bad lines"
        )
    if first is None or first.model is None or first.model in adapters:
        raise UsageError("which model? give --model, or set PROMPTMILL_MODEL")
    return first.model


def _begun(lines: Lines) -> tuple[Line | BadLine | None, Lines]:
    """The first line, None: there is none; and all lines, of which that one is not read again."""
    reading = lines.read()
    first = next(reading.lines, None)
    rest = () if first is None else (first,)
    return first, begun(replace(reading, lines=chain(rest, reading.lines)), lines)
