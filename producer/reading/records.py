"""Bytes of CSV and TSV to records: where a cell and a record end, and what quotes mean."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator
from typing import Literal, NamedTuple

from db.errors import InputError
from producer.reading.lines import Flaw, InputWarning
from producer.reading.rawlines import TOO_LONG, binary, not_utf8, raw_lines

#: `csv`: a cell may be in quotes (RFC 4180), and then have delimiters and line ends in it.
#: `none`: a quote is a character, and a line is a record (IANA's text/tab-separated-values).
Quoting = Literal["csv", "none"]

#: Characters of one cell, at most; a quote that is never closed ends here. (The csv module
#: holds a cell in 4 bytes a character.)
_MAX_CELL = 16 * 2**20

_LINE_ENDS = "\r\n"


class Record(NamedTuple):
    """One record of a table."""

    #: The line that it begins in, from 1.
    line: int
    #: Its cells, or why it has none.
    cells: list[str] | Flaw


class Dialect(NamedTuple):
    """How a table is written."""

    delimiter: str
    quoting: Quoting
    #: Nobody said what quotes mean: a file that looks otherwise is worth a warning.
    guessed: bool = True


def records(stream: Iterator[bytes], name: str, dialect: Dialect) -> Iterator[Record]:
    """The records, the header first; blank lines are none.

    Warns (InputWarning) of quotes that may mean something else. Raises InputError where records
    can't be told apart. Raises the process's limit on the size of a CSV cell.
    """
    if dialect.quoting == "none":
        return _plain_records(stream, name, dialect)
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL))
    return _quoted_records(stream, name, dialect)


def _plain_records(stream: Iterator[bytes], name: str, dialect: Dialect) -> Iterator[Record]:
    quoted, first = 0, 0
    for number, offset, line in raw_lines(stream, name):
        if line is None:
            yield Record(number, Flaw(TOO_LONG))
            continue
        text, flaw = _decoded(line, offset)
        if flaw is not None:
            yield Record(number, flaw)
        elif text := text.rstrip(_LINE_ENDS):
            cells = text.split(dialect.delimiter)
            if '"' in text:
                first = first or number
                quoted += sum([cell.startswith('"') for cell in cells])
            yield Record(number, cells)
    if quoted and dialect.guessed:
        cells_begin = "1 cell begins" if quoted == 1 else f"{quoted:,} cells begin"
        _warn(
            f"{name}: {cells_begin} with a quote (the first in line {first}), which was read as a "
            "character: if the cells are quoted as in CSV, give --quoting csv"
        )


class _Lines:
    """The lines for a csv.reader, with what must be known of those that made the last record."""

    def __init__(self, stream: Iterator[bytes], name: str) -> None:
        self._lines = raw_lines(stream, name)
        self._name = name
        self.ended = False
        #: Of the record that is being read: the number of its first line, its lines, its fault.
        self.first = 0
        self.texts: list[str] = []
        self.flaw: Flaw | None = None

    def begin(self) -> None:
        """What comes next is another record."""
        self.first = 0
        self.texts = []
        self.flaw = None

    def __iter__(self) -> Iterator[str]:
        for number, offset, line in self._lines:
            if line is None:
                raise InputError(f"{self._name}:{number}: {TOO_LONG}")
            text, flaw = _decoded(line, offset)
            self.flaw = self.flaw or flaw
            self.first = self.first or number
            self.texts.append(text)
            yield text
        self.ended = True


def _quoted_records(stream: Iterator[bytes], name: str, dialect: Dialect) -> Iterator[Record]:
    lines = _Lines(stream, name)
    delimiter = dialect.delimiter
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    suspect, first = 0, 0
    while True:
        lines.begin()
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            yield Record(lines.first, _broken(lines, name, error))
            continue
        if lines.flaw is not None:
            yield Record(lines.first, lines.flaw)
        elif cells:
            if len(lines.texts) > 1 and _looks_like_records(lines.texts, delimiter, len(cells)):
                suspect, first = suspect + 1, first or lines.first
            yield Record(lines.first, cells)
    if suspect and dialect.guessed:
        spans = "1 record spans" if suspect == 1 else f"{suspect:,} records span"
        _warn(
            f"{name}: {spans} lines that look like records themselves (the first from line "
            f"{first}): check its quotes; if a quote is a character here, give --quoting none"
        )


def _looks_like_records(texts: list[str], delimiter: str, cells: int) -> bool:
    """Whether each of a record's lines has as many cells as the record."""
    return cells > 1 and all(text.count(delimiter) == cells - 1 for text in texts)


def _broken(lines: _Lines, name: str, error: csv.Error) -> Flaw:
    """Why a record can't be read. Raises InputError where it has no certain end."""
    if lines.ended:
        raise InputError(
            f"{name}:{lines.first}: broken CSV: a quote that is opened in this record is never "
            "closed: close it, double a quote inside a cell, or give --quoting none if a quote is "
            "a character here"
        )
    fault = (
        f"broken CSV: {error}: check that every quote is closed and doubled inside a cell, or give "
        "--quoting none if a quote is a character here"
    )
    if len(lines.texts) > 1:
        raise InputError(f"{name}:{lines.first}: {fault}")
    return Flaw(fault)


def _decoded(line: bytes, offset: int) -> tuple[str, Flaw | None]:
    """The text of a line, and its fault, if any: then the text still shows where cells end."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return line.decode(errors="surrogateescape"), Flaw(not_utf8(offset, error))
    return text, Flaw(binary(line, offset)) if "\0" in text else None


def _warn(message: str) -> None:
    warnings.warn(message, InputWarning, stacklevel=2)
