"""What a user names as input: files, globs, URLs and standard input, found and opened."""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TextIO

from db.errors import InputError
from db.faults import Faults
from producer.reading import remote

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Source:
    """One stream of bytes, not opened yet."""

    #: As the user gave it, or as a glob found it: for messages.
    name: str
    #: What the format is told by; "" for standard input.
    path: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    #: Named by the user, not found by a glob: then it must hold something.
    named: bool = True


def find(given: Sequence[str | os.PathLike[str]]) -> list[Source]:
    """The sources that the names stand for; a glob's in order of name.

    Raises InputError with every file that isn't there, directory, glob that matches nothing and
    URL that nothing here can open.
    """
    if isinstance(given, str):
        given = [given]
    names = [os.fspath(name) for name in given]
    if not names:
        raise InputError("no input: name a file, or - for standard input")
    faults = Faults()
    sources = [source for name in names for source in faults.of(_sources, name) or ()]
    faults.raise_all()
    return sources


def _sources(name: str) -> list[Source]:
    return list(_find(name))


def _find(name: str) -> Iterator[Source]:
    if name == STDIN:
        yield Source(name, "", _stdin)
    elif remote.is_url(name):
        for found, path, opened in remote.find(name):
            yield Source(found, path, opened, named=found == name)
    elif glob.has_magic(name) and not os.path.lexists(name):
        paths = [path for path in sorted(_glob(name)) if not Path(path).is_dir()]
        if not paths:
            raise InputError(f"{name}: no file matches: check the pattern")
        for path in paths:
            yield Source(path, path, partial(_open, path), named=False)
    else:
        _check(name)
        yield Source(name, name, partial(_open, name))


def _stdin() -> AbstractContextManager[IO[bytes]]:
    """Standard input, left open behind us. (Python has None for it where it was closed.)"""
    standard_input: TextIO | None = sys.stdin
    if standard_input is None:
        raise InputError("-: standard input is closed: name a file")
    return nullcontext(standard_input.buffer)


def _glob(pattern: str) -> list[str]:
    return glob.glob(pattern, recursive=True)  # noqa: PTH207 - pathlib refuses absolute patterns


def _check(name: str) -> None:
    with reading(name):
        if "\0" in name or not name:
            raise FileNotFoundError(name)
        if stat.S_ISDIR(Path(name).stat().st_mode):
            raise IsADirectoryError(name)


def _open(path: str) -> IO[bytes]:
    return Path(path).open("rb")


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Translate the system's errors about file `name` to InputError."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{name}: no such file: check the path") from None
    except IsADirectoryError:
        raise InputError(
            f"{name}: this is a directory: name its files, as in {name.rstrip('/')}/*.jsonl"
        ) from None
    except PermissionError:
        raise InputError(f"{name}: permission denied: let your user read it (chmod u+r)") from None
    except OSError as error:
        raise InputError(f"{name}: can't be read: {error.strerror or error}: try a copy") from None
