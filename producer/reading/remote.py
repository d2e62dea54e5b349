"""URLs, through fsspec: `s3://…`, `gs://…`, `https://…`, `memory://…`, `file://…`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import IO, Any

from db.errors import InputError, PromptmillError
from db.settings import redact

#: A name for messages, the path that tells the format, and how to open.
Found = tuple[str, str, Callable[[], AbstractContextManager[IO[bytes]]]]


def is_url(name: str) -> bool:
    """Whether a name is a URL rather than a path."""
    scheme, separator, _ = name.partition("://")
    return bool(separator) and scheme.replace("+", "").replace("::", "").isalnum()


def find(url: str) -> Iterator[Found]:
    """The file, or with `*` in the path the files in order of name.

    Raises InputError where no driver for the URL is installed, or nothing matches.
    """
    filesystem, path = _resolve(url)
    web = url.startswith(("http://", "https://"))  # a `*` in a signed address is no pattern
    if web or "*" not in url:
        place = path.partition("?")[0] if web else path
        yield redact(url), place, partial(_open, filesystem, path, url)
        return
    with translated(url):
        paths = sorted(found for found in filesystem.glob(path) if not filesystem.isdir(found))
    if not paths:
        raise InputError(f"{redact(url)}: no file matches: check the pattern")
    for found in paths:
        name = filesystem.unstrip_protocol(found)
        yield name, found, partial(_open, filesystem, found, name)


def _resolve(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        filesystem, path = url_to_fs(url)
    except ImportError as error:
        raise InputError(f"{redact(url)}: its driver is missing: {_install(url, error)}") from None
    except ValueError as error:
        raise InputError(f"{redact(url)}: can't be opened: {error}: check the URL") from None
    return filesystem, str(path)


def _install(url: str, error: ImportError) -> str:
    """What to install. fsspec's registry says it in a sentence, else the import names it."""
    from fsspec.registry import known_implementations

    scheme = url.partition("://")[0].partition("::")[0]
    advice = known_implementations.get(scheme, {}).get("err")
    return str(advice or f"install {error.name or error}")


@contextmanager
def _open(filesystem: Any, path: str, url: str) -> Iterator[IO[bytes]]:
    with translated(url), filesystem.open(path, "rb") as file:
        yield file


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Errors of any storage driver become InputError; ours and the system's pass."""
    try:
        yield
    except (PromptmillError, OSError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        told = f"can't be read: {reason}: check URL and credentials"
        raise InputError(f"{redact(url)}: {told}") from error
