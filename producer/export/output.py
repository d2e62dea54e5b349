"""Where results go: a file that appears whole or not at all, standard output, a URL.

    with opened(output) as sink:      # raises OutputError at once if there can be no such file
        sink.write(...)
    # here, and not before, the file has its name

An error on the way out belongs to the output and becomes an OutputError that names it. What
the caller raises between two writes passes unchanged.
"""

from __future__ import annotations

import io
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from producer.export.formats import is_stdout
from producer.export.local import Write, check_path, local_file, write_all
from producer.export.refusals import explained
from producer.export.remote import check_url, remote_file
from producer.reading.remote import is_url


class Sink:
    """A binary file for writing, as far as pyarrow needs one.

    After a failure it drops what it gets: a writer that is closed or collected while an error
    passes must not put a good ending under a file that is cut off.
    """

    closed = False

    def __init__(self, name: str, write: Write) -> None:
        self._name = name
        self._write = write
        self._failed = False

    def write(self, data: bytes) -> int:
        """Raises OutputError, or BrokenPipeError where a reader has gone."""
        if not self._failed:
            try:
                with explained(self._name):
                    self._write(data)
            except BaseException:
                self._failed = True
                raise
        return len(data)

    def fail(self) -> None:
        """Take nothing more."""
        self._failed = True

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Whoever opened it closes it."""


def check_target(output: str | None) -> None:
    """Raise OutputError now for what would fail after hours of work. Writes nothing."""
    if output is None or is_stdout(output):
        return
    if is_url(output):
        check_url(output)
    else:
        check_path(Path(output))


def makes_file(output: str | None) -> bool:
    """Whether a file appears there: not so for standard output, a device or a named pipe."""
    if output is None or is_stdout(output):
        return False
    if is_url(output):
        return True
    try:
        return stat.S_ISREG(Path(output).stat().st_mode)
    except OSError:  # it is not there, or the writing of it says what is wrong
        return True


@contextmanager
def opened(output: str | None, *, replaces: str | None = None) -> Iterator[Sink]:
    """A sink to a path, an fsspec URL, or standard output (None or `-`).

    `replaces`: a file that belongs to the one that was there before; it goes in the moment before
    the new one appears. Raises OutputError, at the start, during a write or at the end.
    """
    with _place(output, replaces) as (name, write):
        sink = Sink(name, write)
        try:
            yield sink
        except BaseException:
            sink.fail()
            raise


@contextmanager
def _place(output: str | None, replaces: str | None) -> Iterator[tuple[str, Write]]:
    if output is None or is_stdout(output):
        yield "standard output", _to_stdout()
    elif is_url(output):
        with remote_file(output) as write:
            yield output, write
    else:
        with local_file(
            Path(output), replaces=None if replaces is None else Path(replaces)
        ) as write:
            yield output, write


def _to_stdout() -> Write:
    """Past Python's own buffer: bytes left in it would fail once more when Python ends."""
    with explained("standard output"):
        sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
    except io.UnsupportedOperation:  # a notebook's or a test's stand-in
        return sys.stdout.buffer.write
    return partial(write_all, descriptor)
