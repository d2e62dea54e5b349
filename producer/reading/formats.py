"""Which format a source has: by its name, by the caller's word, or by its first bytes."""

from __future__ import annotations

from typing import Literal, get_args

from db.errors import InputError, UsageError
from producer.reading.streams import Compression
from producer.reading.texts import shown

Format = Literal["jsonl", "txt", "csv", "tsv", "parquet"]

FORMATS: tuple[Format, ...] = get_args(Format)

_SUFFIXES: dict[str, Format] = {
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "jsonl",
    "txt": "txt",
    "text": "txt",
    "csv": "csv",
    "tsv": "tsv",
    "parquet": "parquet",
    "pq": "parquet",
}

_COMPRESSIONS: dict[str, Compression] = {"gz": "gz", "gzip": "gz", "zst": "zst", "zstd": "zst"}


def by_name(path: str) -> tuple[str, Compression | None]:
    """The suffix (lower case, no dot; "" for none) under the one that names the compression."""
    stem, suffix = _split(path.rpartition("/")[2])
    if suffix in _COMPRESSIONS:
        return _split(stem)[1], _COMPRESSIONS[suffix]
    return suffix, None


def _split(name: str) -> tuple[str, str]:
    """A name and its suffix; a name that only starts with a dot has none."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, suffix.lower()) if dot and stem else (name, "")


def by_word(word: str) -> Format:
    """The format that a caller names. Raises UsageError for an unknown one."""
    format_ = _SUFFIXES.get(word.lower().removeprefix("."))
    if format_ is None:
        raise UsageError(f"format {shown(word)} is unknown: use one of {', '.join(FORMATS)}")
    return format_


def by_content(name: str, suffix: str, head: bytes) -> Format:
    """The format of a source by suffix, else by its first bytes.

    Text of no known kind is taken for a prompt a line, but not where a suffix says that it is
    something else: raises InputError then.
    """
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b'"', b"["):
        return "jsonl"
    if suffix and head:
        raise InputError(
            f"{name}: the suffix '.{suffix}' is unknown: rename the file to "
            f"{', '.join('.' + known for known in FORMATS)} (.gz and .zst may follow), "
            "or give its format"
        )
    return "txt"
