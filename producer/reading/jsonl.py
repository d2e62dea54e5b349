"""JSON Lines: one JSON value a line, blank lines skipped."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from db.errors import InputError
from producer.reading.lines import Flaw
from producer.reading.rawlines import TOO_LONG, not_utf8, raw_lines


def jsonl_items(stream: Iterator[bytes], name: str) -> Iterator[tuple[int, object]]:
    """Each line's number and decoded value, or a Flaw.

    Raises InputError where the bytes are no UTF-8, and for one JSON array instead of lines.
    """
    loads, broken = orjson.loads, orjson.JSONDecodeError
    started = False
    for number, offset, line in raw_lines(stream, name):
        if line is None:
            yield number, Flaw(TOO_LONG)
            continue
        if not started and (text := line.lstrip()):
            started = True
            _refuse_array(text, name, number)
        try:
            item = loads(line)
        except broken as error:
            if line.strip():
                yield number, _flaw(line, name, number, offset, error)
            continue
        yield number, item


def _refuse_array(text: bytes, name: str, number: int) -> None:
    if text.startswith(b"["):
        raise InputError(
            f"{name}:{number}: this is one JSON array: write one JSON value a line, "
            "as `jq -c '.[]'` does"
        )


def _flaw(line: bytes, name: str, number: int, offset: int, error: orjson.JSONDecodeError) -> Flaw:
    try:
        text = line.decode()
    except UnicodeDecodeError as undecodable:
        raise not_utf8(name, number, offset, undecodable) from None
    if "surrogate" in error.msg:
        return Flaw(
            f"a lone surrogate at column {error.colno}: it is not valid Unicode, "
            "remove it or write the whole pair"
        )
    hint = "write one whole JSON value a line"
    if text.lstrip()[:1] not in ("{", '"'):
        hint = 'a line is a "prompt" in quotes or a {...} object'
    return Flaw(f"broken JSON at column {error.colno}: {error.msg}: {hint}")
