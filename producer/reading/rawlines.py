"""A stream of bytes as lines, one at a time, however many or long they are."""

from __future__ import annotations

from collections.abc import Iterator

from db.errors import InputError
from producer.reading.streams import BrokenStream

#: Bytes of one line, at most: a longer one is skipped without being held.
MAX_LINE_BYTES = 64 * 2**20

TOO_LONG = f"the line is longer than {MAX_LINE_BYTES >> 20} MiB: split or shorten it"

#: A line's number from 1, the offset of its first byte, and its bytes without the line feed;
#: None in their place where there are more than MAX_LINE_BYTES.
RawLine = tuple[int, int, bytes | None]

_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


def raw_lines(stream: Iterator[bytes], name: str, limit: int = MAX_LINE_BYTES) -> Iterator[RawLine]:
    """The lines of `stream`; a byte order mark is taken off.

    Raises InputError, naming file and line, at a NUL byte or a mark of UTF-16, and where the
    stream is cut off or damaged.
    """
    number, offset, held = 1, 0, _Held(limit)
    try:
        for chunk in stream:
            if number == 1 and not offset and not held.size:
                offset, chunk = _without_mark(chunk, name)  # noqa: PLW2901
            if b"\0" in chunk:
                raise _binary(chunk, name, number, offset + held.size)
            *ended, begun = chunk.split(b"\n")
            for piece in ended:
                size, line = held.end(piece)
                yield number, offset, line
                number += 1
                offset += size + 1
            held.add(begun)
    except BrokenStream as broken:
        raise broken.in_file(name, after_line=number - 1) from None
    if held.size:
        _, line = held.end(b"")
        yield number, offset, line


class _Held:
    """The beginning of a line whose end has not come yet; forgotten once it is too long."""

    def __init__(self, limit: int) -> None:
        self.size = 0
        self._limit = limit
        self._parts: list[bytes] = []

    def add(self, part: bytes) -> None:
        self.size += len(part)
        if self.size > self._limit:
            self._parts.clear()
        elif part:
            self._parts.append(part)

    def end(self, part: bytes) -> tuple[int, bytes | None]:
        """The line's size and bytes (None: too long), now that its last part is there."""
        if self.size:
            self.add(part)
            size, whole = self.size, b"".join(self._parts)
            self.size = 0
            self._parts.clear()
        else:
            size, whole = len(part), part
        return size, whole if size <= self._limit else None


def _without_mark(chunk: bytes, name: str) -> tuple[int, bytes]:
    if chunk.startswith(_UTF16_BOMS):
        raise InputError(f"{name}:1: this is UTF-16 text: save the file as UTF-8")
    if chunk.startswith(_BOM):
        return len(_BOM), chunk[len(_BOM) :]
    return 0, chunk


def _binary(chunk: bytes, name: str, number: int, start: int) -> InputError:
    place = chunk.index(b"\0")
    line = number + chunk.count(b"\n", 0, place)
    return InputError(
        f"{name}:{line}: binary data (a NUL at byte {start + place}): give a file of text, in UTF-8"
    )


def not_utf8(name: str, number: int, offset: int, error: UnicodeDecodeError) -> InputError:
    """That the line which starts at byte `offset` of the file is no UTF-8."""
    return InputError(
        f"{name}:{number}: not UTF-8 text (byte {offset + error.start} is "
        f"0x{error.object[error.start]:02x}): save the file as UTF-8"
    )
