"""A file of this machine that appears whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from producer.export.refusals import explained


class Write(Protocol):
    """Writes all of it. Raises OSError or OutputError."""

    def __call__(self, data: bytes, /) -> object: ...


def check_path(path: Path) -> None:
    """Raise OutputError where `local_file` could not begin. Writes nothing."""
    with explained(str(path)):
        existing = _status(path)
        if existing is not None and not stat.S_ISREG(existing.st_mode):
            return
        folder = Path(os.path.realpath(path)).parent
        if not folder.exists():
            raise _system_error(errno.ENOENT)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise _system_error(errno.EACCES)


@contextmanager
def local_file(path: Path, *, replaces: Path | None = None) -> Iterator[Write]:
    """A file that gets its name at the end; a device or named pipe is written as it is.

    `replaces`: another file, which goes in the moment before that.
    """
    with explained(str(path)):
        existing = _status(path)
    if existing is None or stat.S_ISREG(existing.st_mode):
        with _whole_file(path, existing, replaces) as write:
            yield write
    else:
        with _descriptor(path, os.O_WRONLY, str(path)) as descriptor:
            yield partial(write_all, descriptor)


def _status(path: Path) -> os.stat_result | None:
    """What stands there; None if nothing. Raises OSError where no file can be put."""
    try:
        existing = path.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(existing.st_mode):
        raise _system_error(errno.EISDIR)
    if not os.access(path, os.W_OK):
        raise _system_error(errno.EACCES)
    return existing


def _system_error(number: int) -> OSError:
    """As if the system itself had said it: PermissionError and so on."""
    return OSError(number, os.strerror(number))


@contextmanager
def _whole_file(
    path: Path, existing: os.stat_result | None, replaces: Path | None
) -> Iterator[Write]:
    """Beside the target, so that the rename stays on one file system and can't fail for space."""
    target = Path(os.path.realpath(path))  # a link stays a link
    part = target.with_name(f".promptmill-{secrets.token_hex(8)}.part")
    try:
        with _descriptor(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, str(path)) as descriptor:
            yield partial(write_all, descriptor)
            with explained(str(path)):
                if existing is not None:
                    os.fchmod(descriptor, stat.S_IMODE(existing.st_mode))
                os.fsync(descriptor)
        with explained(str(path)):
            if replaces is not None:
                replaces.unlink(missing_ok=True)
            part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def _descriptor(path: Path, flags: int, name: str) -> Iterator[int]:
    with explained(name):
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor
    finally:
        with explained(name):
            os.close(descriptor)


def write_all(descriptor: int, data: bytes, /) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
