"""Plain text: a prompt a line, blank lines skipped."""

from __future__ import annotations

from collections.abc import Iterator

from producer.reading.lines import Flaw
from producer.reading.rawlines import TOO_LONG, not_utf8, raw_lines


def text_items(stream: Iterator[bytes], name: str) -> Iterator[tuple[int, object]]:
    """Each line's number and text, without its LF or CRLF, or a Flaw.

    Raises InputError where the bytes are no UTF-8.
    """
    for number, offset, line in raw_lines(stream, name):
        if line is None:
            yield number, Flaw(TOO_LONG)
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise not_utf8(name, number, offset, error) from None
        if text.strip():
            yield number, text.removesuffix("\r")
