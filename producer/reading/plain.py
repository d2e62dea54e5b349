"""Plain text: a prompt a line, blank lines skipped."""

from __future__ import annotations

from collections.abc import Iterator

from producer.reading.lines import Flaw
from producer.reading.rawlines import TOO_LONG, binary, not_utf8, raw_lines

_LINE_ENDS = "\r\n"


def text_items(stream: Iterator[bytes], name: str) -> Iterator[tuple[int, object]]:
    """Each line's number and text, without its LF, CRLF or CR, or a Flaw."""
    for number, offset, line in raw_lines(stream, name):
        if line is None:
            yield number, Flaw(TOO_LONG)
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            yield number, Flaw(not_utf8(offset, error))
            continue
        if "\0" in text:
            yield number, Flaw(binary(line, offset))
        elif text.strip():
            yield number, text.rstrip(_LINE_ENDS)
