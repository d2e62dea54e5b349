"""From what a user hands over to lines that can be submitted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from os import PathLike
from typing import Any, Unpack

from db.errors import UsageError
from producer.input_columns.header import Header
from producer.reading import BadLine, Line, ReadingOptions, parse_all, read

#: A path, URL or glob of a prompt file; or prompts (text) and requests (mappings) themselves.
Source = str | PathLike[str] | Iterable[Any]


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
    """The lines of a file, or of an iterable of prompts and requests; a mapping is one request."""
    if isinstance(source, Mapping):
        source = [source]
    if isinstance(source, str | PathLike):
        return from_files([str(source)], given_format=given_format, quoting=quoting, **options)

    def begin() -> Reading:
        header = _header(options)
        return Reading(parse_all(source, header=header, **options), header)

    return Lines(begin, repeatable=isinstance(source, list | tuple))


def _header(options: ReadingOptions) -> Header:
    return Header(options["max_prompt_bytes"])


def model_of_first(lines: Lines, adapters: Collection[str] = ()) -> tuple[str, Lines]:
    """The model that the first line names, as in OpenAI's files; and the lines, whole again.

    `adapters`: names that are no model's.
    """
    reading = lines.read()
    first = next(reading.lines, None)
    if isinstance(first, BadLine):
        raise UsageError(
            f"{first.message}; with --model, or PROMPTMILL_MODEL, you are told of all bad lines"
        )
    if first is None or first.model is None or first.model in adapters:
        raise UsageError("which model? give --model, or set PROMPTMILL_MODEL")
    if lines.repeatable:
        return first.model, lines
    whole = replace(reading, lines=chain([first], reading.lines))
    return first.model, Lines(lambda: whole, repeatable=False)
