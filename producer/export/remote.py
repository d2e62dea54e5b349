"""A file at a URL, through fsspec: `s3://…`, `gs://…`, `memory://…`, `file://…`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from db.errors import OutputError, PromptmillError
from db.settings import redact
from producer.export.local import Write, local_file


def check_url(url: str) -> None:
    """Raise OutputError where no driver for the URL is installed. Asks no server."""
    _resolve(url)


@contextmanager
def remote_file(url: str) -> Iterator[Write]:
    """A file that is there at the end, through fsspec's transaction; none after an error."""
    filesystem, path = _resolve(url)
    if "file" in filesystem.protocol:
        with local_file(Path(path)) as write:
            yield write
        return
    transaction = filesystem.transaction
    with _told(url):
        transaction.start()
        file = filesystem.open(path, "wb")
    try:
        yield _writer(file, url)
        with _told(url):
            file.close()
    except BaseException:
        # What the driver says to the clean-up must not hide why there is one.
        with suppress(Exception):
            file.close()
        with suppress(Exception):
            transaction.complete(commit=False)
        raise
    with _told(url):
        transaction.complete(commit=True)


def _writer(file: Any, url: str) -> Write:
    def write(data: bytes, /) -> None:
        with _told(url):
            file.write(data)

    return write


def _resolve(url: str) -> tuple[Any, str]:
    """The driver, not shared with anyone whose files this transaction would take along."""
    from fsspec.core import url_to_fs

    try:
        filesystem, path = url_to_fs(url, skip_instance_cache=True)
    except ImportError as error:
        raise OutputError(f"{redact(url)}: its driver is missing: {_line(error)}") from None
    except ValueError as error:
        reason = f"can't be opened: {_line(error)}: check the URL"
        raise OutputError(f"{redact(url)}: {reason}") from None
    return filesystem, str(path)


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Errors of any storage driver become OutputError."""
    try:
        yield
    except PromptmillError:
        raise
    except Exception as error:
        raise OutputError(
            f"{redact(url)}: can't be written: {_line(error)}: check URL and credentials"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
