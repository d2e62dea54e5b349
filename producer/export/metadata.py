"""Where the metadata of an output goes: into a Parquet file, else into a file beside the output.

`results.jsonl` gets `results.jsonl.meta.json`. It appears after the output, and that of an output
which is replaced goes first: whenever both are there, they belong together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from db.exact_json import WrittenNumber, fragment
from db.records import Batch
from producer.export.output import makes_file, opened

SUFFIX = ".meta.json"
#: The key of the whole document in a Parquet file's metadata.
KEY = "promptmill.results"


def metadata_path(output: str | None) -> str | None:
    """Where the metadata of an output goes; None: nowhere."""
    return output + SUFFIX if output is not None and makes_file(output) else None


def write_metadata(path: str, document: Mapping[str, Any]) -> None:
    """Write the file whole or not at all. Raises OutputError."""
    with opened(path) as sink:
        sink.write(_encoded(document, option=orjson.OPT_INDENT_2) + b"\n")


def schema_metadata(batch: Batch | None) -> dict[str, str]:
    """What a Parquet file's schema says of the batch."""
    if batch is None:
        return {}
    named = {"batch": batch.id, "model": batch.model, "name": batch.name, "mode": batch.mode}
    return {f"promptmill.{key}": value for key, value in named.items() if value is not None}


def file_metadata(document: Mapping[str, Any]) -> dict[str, str]:
    """What the end of a Parquet file says of its rows."""
    return {KEY: _encoded(document).decode()}


def _encoded(document: Mapping[str, Any], *, option: int = 0) -> bytes:
    return orjson.dumps(document, default=_plain, option=option)


def _plain(value: object) -> object:
    """What orjson does not take."""
    if isinstance(value, WrittenNumber):
        return fragment(value)
    return dict(value) if isinstance(value, Mapping) else str(value)
