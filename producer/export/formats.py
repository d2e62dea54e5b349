"""Which format an output gets: the one that is asked for, else the one its name tells."""

from __future__ import annotations

import sys
from typing import Literal, get_args

from db.errors import UsageError
from db.modes import Mode
from producer.export.refusals import IS_A_FOLDER
from producer.reading.formats import by_name
from producer.reading.streams import Compression
from producer.reading.texts import shown

ExportFormat = Literal["jsonl", "csv", "parquet", "openai"]

FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

_SUFFIXES: dict[str, ExportFormat] = {
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "csv": "csv",
    "parquet": "parquet",
    "pq": "parquet",
}


def format_of(output: str | None, given: str | None, *, option: str = "--format") -> ExportFormat:
    """The format for `output` (a path or URL; None or `-` is standard output).

    `given`, which users give by `option`, wins over the suffix; standard output gets jsonl
    unless told otherwise. Raises UsageError where neither tells, for a folder, and for Parquet
    on a terminal or under `.gz`/`.zst`.
    """
    if output is not None and output.endswith("/"):
        raise UsageError(f"{output}: {IS_A_FOLDER}")
    chosen = _by_word(given) if given is not None else _by_suffix(output, option)
    check_packing(output, chosen)
    if chosen == "parquet" and is_stdout(output) and sys.stdout.isatty():
        raise UsageError("parquet is not for a terminal: give -o FILE.parquet, or pipe it")
    return chosen


def is_stdout(output: str | None) -> bool:
    return output is None or output == "-"


def packing_of(output: str | None) -> Compression | None:
    """How the output's name says that it is compressed."""
    return None if output is None or is_stdout(output) else by_name(output)[1]


def check_packing(output: str | None, chosen: ExportFormat) -> None:
    """Raise UsageError where a compressed file of this format makes no sense."""
    packing = packing_of(output)
    if chosen == "parquet" and packing is not None:
        raise UsageError(
            f"{output}: a Parquet file is compressed inside: leave out the suffix .{packing}"
        )


def check_mode(mode: Mode, chosen: ExportFormat) -> None:
    """Raise UsageError where the format has no place for what the mode gives."""
    if chosen == "openai" and mode is Mode.SCORE:
        others = ", ".join(known for known in FORMATS if known != "openai")
        raise UsageError(
            f"format openai holds generated text and embeddings, and this batch is of mode {mode}: "
            f"use one of {others}"
        )


def _by_word(word: str) -> ExportFormat:
    for known in FORMATS:
        if word.lower().removeprefix(".") == known:
            return known
    raise UsageError(f"format {shown(word)} is unknown: use one of {', '.join(FORMATS)}")


def _by_suffix(output: str | None, option: str) -> ExportFormat:
    if output is None or is_stdout(output):
        return "jsonl"
    suffix = by_name(output)[0]
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    found = f"the suffix '.{suffix}' is unknown" if suffix else "no suffix tells its format"
    raise UsageError(
        f"{output}: {found}: end it in .jsonl, .csv or .parquet, or give {option} "
        f"({', '.join(FORMATS)})"
    )
