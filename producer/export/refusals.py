"""What the system says when it takes no bytes, as a line that names the file and a way out."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath

from db.errors import OutputError, OutputPathError

_NO_SPACE = "no space is left: free some, or write to another disk"
_FORBIDDEN = "permission denied: choose a place that you may write to"

IS_A_FOLDER = (
    "this is a folder: give the name of a file in it, or export numbered files to it with "
    "'promptmill results BATCH -o DIR/ --rows-per-file N'"
)

_REASONS = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: "your disk quota is used up: free some space, or write to another disk",
    errno.EFBIG: "too large for its file system: write to another disk",
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: "its file system is read-only: choose a place that you may write to",
    errno.EISDIR: IS_A_FOLDER,
    errno.ENOTDIR: "a part of the path is a file, not a folder: check the path",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
}

#: What another path avoids.
_WRONG_PATHS = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn an OSError into an OutputError about `name`; a reader that hung up is left as it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        kind = OutputPathError if isinstance(error, _WRONG_PATHS) else OutputError
        raise kind(f"{name}: {_reason(name, error)}") from error


def _reason(name: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        folder = PurePath(name).parent
        return f"its folder does not exist: create it with 'mkdir -p {folder}'"
    known = _REASONS.get(error.errno or 0)
    return known or f"can't be written ({error.strerror or error}): check the place, try again"
