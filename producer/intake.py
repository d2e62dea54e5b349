"""From what a user hands over to lines that can be submitted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from os import PathLike
from typing import Any

from db.errors import UsageError
from db.modes import Mode
from producer.reading import BadLine, Line, parse_all, read

#: A path, URL or glob of a prompt file; or prompts (text) and requests (mappings) themselves.
Source = str | PathLike[str] | Iterable[Any]


@dataclass(frozen=True, slots=True)
class Lines:
    """A stream of lines."""

    #: Begins to read; call it again only if they are `repeatable`.
    read: Callable[[], Iterable[Line | BadLine]]
    repeatable: bool


def from_files(
    names: list[str],
    *,
    template: str | None,
    given_format: str | None,
    defaults: Mapping[str, Any],
    max_prompt_bytes: int,
    mode: Mode,
) -> Lines:
    """The lines of files, one after the other; `-` is standard input, and can be read once."""
    return Lines(
        lambda: read(
            names,
            template=template,
            format=given_format,
            defaults=defaults,
            max_prompt_bytes=max_prompt_bytes,
            mode=mode,
        ),
        repeatable="-" not in names,
    )


def from_source(
    source: Source,
    *,
    template: str | None,
    given_format: str | None,
    defaults: Mapping[str, Any],
    max_prompt_bytes: int,
    mode: Mode,
) -> Lines:
    """The lines of a file, or of an iterable of prompts and requests; a mapping is one request."""
    if isinstance(source, Mapping):
        source = [source]
    if isinstance(source, str | PathLike):
        return from_files(
            [str(source)],
            template=template,
            given_format=given_format,
            defaults=defaults,
            max_prompt_bytes=max_prompt_bytes,
            mode=mode,
        )
    return Lines(
        lambda: parse_all(
            source,
            template=template,
            defaults=defaults,
            max_prompt_bytes=max_prompt_bytes,
            mode=mode,
        ),
        repeatable=isinstance(source, list | tuple),
    )


def model_of_first(lines: Lines, adapters: Collection[str] = ()) -> tuple[str, Lines]:
    """The model that the first line names, as in OpenAI's files; and the lines, whole again.

    `adapters`: names that are no model's.
    """
    stream = iter(lines.read())
    first = next(stream, None)
    if isinstance(first, BadLine):
        raise UsageError(
            f"{first.message}; with --model, or PROMPTMILL_MODEL, you are told of all bad lines"
        )
    if first is None or first.model is None or first.model in adapters:
        raise UsageError("which model? give --model, or set PROMPTMILL_MODEL")
    if lines.repeatable:
        return first.model, lines
    return first.model, Lines(lambda: chain([first], stream), repeatable=False)
