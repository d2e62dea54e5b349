"""JSON Lines: one JSON value a line, blank lines skipped."""

from __future__ import annotations

from collections.abc import Iterator

from db.errors import InputError
from db.exact_json import BrokenJson, loads, loads_flat
from producer.reading.lines import Flaw
from producer.reading.rawlines import TOO_LONG, RawLine, binary, not_utf8, raw_lines

#: Bytes of lines that are decoded together, and how many more each line counts for.
_BLOCK_BYTES, _LINE_BYTES = 65_536, 256


def jsonl_items(stream: Iterator[bytes], name: str) -> Iterator[tuple[int, object]]:
    """Each line's number and decoded value, or a Flaw.

    Raises InputError for one JSON array instead of lines.
    """
    started = False
    for block in _blocks(raw_lines(stream, name)):
        values = loads_flat([line or b"" for _, _, line in block])
        if values is not None:
            started = True
            yield from enumerate(values, start=block[0][0])
            continue
        for number, offset, line in block:
            if line is None:
                yield number, Flaw(TOO_LONG)
                continue
            if not started and (text := line.lstrip()):
                started = True
                _refuse_array(text, name, number)
            try:
                item = loads(line)
            except BrokenJson as error:
                if line.strip():
                    yield number, _flaw(line, offset, error)
                continue
            yield number, item


def _blocks(lines: Iterator[RawLine]) -> Iterator[list[RawLine]]:
    """Some lines at once; of long ones, fewer."""
    block: list[RawLine] = []
    size = 0
    for line in lines:
        block.append(line)
        size += _LINE_BYTES + len(line[2] or b"")
        if size > _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _refuse_array(text: bytes, name: str, number: int) -> None:
    if text.startswith(b"["):
        raise InputError(
            f"{name}:{number}: this is one JSON array: write one JSON value a line, "
            "as `jq -c '.[]'` does"
        )


def _flaw(line: bytes, offset: int, error: BrokenJson) -> Flaw:
    try:
        text = line.decode()
    except UnicodeDecodeError as undecodable:
        return Flaw(not_utf8(offset, undecodable))
    if b"\0" in line:
        return Flaw(binary(line, offset))
    match error.kind:
        case "surrogate":
            return Flaw(
                f"a lone surrogate at column {error.column}: it is not valid Unicode, "
                "remove it or write the whole pair"
            )
        case "duplicate key":
            return Flaw(f"{error.reason}, again at column {error.column}: keep one of the two")
        case "too large":
            return Flaw(f"{error.reason} (column {error.column}): make it a text, in quotes")
    hint = "write one whole JSON value a line"
    if text.lstrip()[:1] not in ("{", '"'):
        hint = 'a line is a "prompt" in quotes or a {...} object'
    return Flaw(f"broken JSON at column {error.column}: {error.reason}: {hint}")
