"""A stream of bytes as lines, one at a time, however many or long they are."""

from __future__ import annotations

from collections.abc import Iterator

from db.errors import InputError
from producer.reading.streams import BrokenStream

#: Bytes of one line, at most: a longer one is skipped without being held.
MAX_LINE_BYTES = 64 * 2**20

TOO_LONG = f"the line is longer than {MAX_LINE_BYTES >> 20} MiB: split or shorten it"

#: A line's number from 1, the offset of its first byte, and its bytes with the line end; None in
#: their place where there are more than MAX_LINE_BYTES.
RawLine = tuple[int, int, bytes | None]

_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")

#: Bytes at the start of a stream that show whether it is text.
_HEAD = 8192


def raw_lines(stream: Iterator[bytes], name: str, limit: int = MAX_LINE_BYTES) -> Iterator[RawLine]:
    """The lines of `stream`, each ended by LF, CRLF or CR; a byte order mark is removed.

    Raises InputError, naming file and line, for binary data and UTF-16, and where the stream is
    cut off or damaged.
    """
    number, offset, held = 1, 0, _Held(limit)
    try:
        for chunk in _with_whole_ends(stream):
            if number == 1 and not offset and not held.size:
                offset, chunk = _without_mark(chunk, name)  # noqa: PLW2901
                _refuse_binary(chunk, name, offset)
            lines = chunk.splitlines(keepends=True)
            begun = lines.pop() if lines and not chunk.endswith((b"\n", b"\r")) else b""
            for piece in lines:
                size, line = held.end(piece)
                yield number, offset, line
                number += 1
                offset += size
            held.add(begun)
    except BrokenStream as broken:
        raise broken.in_file(name, after_line=number - 1) from None
    if held.size:
        _, line = held.end(b"")
        yield number, offset, line


class _Held:
    """The beginning of a line whose end has not come yet; dropped once it is too long."""

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


def _with_whole_ends(stream: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, in pieces that never end between the CR and the LF of a line end."""
    last = b""
    for piece in stream:
        chunk = last + piece
        last = b"\r" if chunk.endswith(b"\r") else b""
        yield chunk[:-1] if last else chunk
    yield last


def _refuse_binary(chunk: bytes, name: str, start: int) -> None:
    """InputError where a stream that begins with `chunk` is no text at all.

    A NUL further on is one bad line.
    """
    head = chunk[:_HEAD]
    if b"\0" not in head:
        return
    first = head.splitlines(keepends=True)[0]
    if b"\0" in first or not _is_utf8(first):
        position = head.index(b"\0")
        line = len(head[: position + 1].splitlines())
        raise InputError(f"{name}:{line}: {binary(head, start)}")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def binary(line: bytes, offset: int) -> str:
    """That bytes from `offset` of the file have a NUL."""
    return f"binary data (a NUL at byte {offset + line.index(0)}): give a file of text, in UTF-8"


def not_utf8(offset: int, error: UnicodeDecodeError) -> str:
    """That the line which starts at byte `offset` of the file is no UTF-8."""
    return (
        f"not UTF-8 text (byte {offset + error.start} is 0x{error.object[error.start]:02x}): "
        "save the file as UTF-8"
    )
