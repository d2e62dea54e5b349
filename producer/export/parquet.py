"""Parquet: a row a sample, one schema for every batch, compressed with Zstandard."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from db.exact_json import dumps
from db.records import Batch, Result
from producer.export.fields import duration, request_of
from producer.export.output import Sink

#: Rows of a row group at most …
_ROWS = 8_192
#: … and characters of text that it may hold, so that long texts don't pile up in memory.
_CHARACTERS = 16 << 20
#: Parsed log-probabilities take this many times their JSON's size.
_LOGPROBS_WEIGHT = 8
#: Bytes of a number of an embedding.
_NUMBER = 4

_TOKEN = [
    pa.field("token", pa.string()),
    pa.field("token_id", pa.int64()),
    pa.field("logprob", pa.float64()),
    #: Of a token that is not whole characters.
    pa.field("bytes", pa.list_(pa.uint8())),
]

#: A token each, with the likeliest tokens at its place.
_LOGPROBS = pa.list_(pa.struct([*_TOKEN, pa.field("top", pa.list_(pa.struct(_TOKEN)))]))

_VECTOR = pa.list_(pa.float32())

_TIME = pa.timestamp("us", tz="UTC")

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("custom_id", pa.string()),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("reasoning", pa.string()),
        #: JSON, as OpenAI writes them.
        pa.field("tool_calls", pa.string()),
        pa.field("finish_reason", pa.string()),
        pa.field("prompt_tokens", pa.int32()),
        pa.field("completion_tokens", pa.int32()),
        pa.field("logprobs", _LOGPROBS),
        pa.field("logprob", pa.float64()),
        pa.field("perplexity", pa.float64()),
        pa.field("embedding", _VECTOR),
        pa.field("model", pa.string(), nullable=False),
        pa.field("revision", pa.string()),
        pa.field("weights", pa.string()),
        pa.field("tokenizer", pa.string()),
        pa.field("adapter", pa.string()),
        pa.field("engine", pa.string()),
        pa.field("engine_version", pa.string()),
        pa.field("backend", pa.string()),
        pa.field("dtype", pa.string()),
        pa.field("device", pa.string()),
        pa.field("hardware", pa.string()),
        pa.field("worker", pa.string()),
        pa.field("seed", pa.int64()),
        #: JSON: its keys are those that have a value.
        pa.field("params", pa.string()),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("started_at", _TIME),
        pa.field("finished_at", _TIME),
        pa.field("seconds", pa.float64()),
        pa.field("error_code", pa.string()),
        pa.field("error_message", pa.string()),
        #: All null unless the request was asked for; messages as JSON.
        pa.field("prompt", pa.string()),
        pa.field("messages", pa.string()),
        pa.field("completion", pa.string()),
    ]
)


def write(results: Iterable[Result], sink: Sink, batch: Batch | None) -> int:
    """Write a row group at a time; how many rows."""
    count = 0
    schema = SCHEMA.with_metadata(_metadata(batch))
    writer = pq.ParquetWriter(sink, schema, compression="zstd")
    for group in _groups(results):
        writer.write_batch(pa.record_batch(_columns(group), schema=schema))
        count += len(group)
    # Not in a `finally`: a file without its footer is known to be cut off.
    writer.close()
    return count


def _metadata(batch: Batch | None) -> dict[str, str]:
    if batch is None:
        return {}
    named = {"batch": batch.id, "model": batch.model, "name": batch.name, "mode": batch.mode}
    return {f"promptmill.{key}": value for key, value in named.items() if value is not None}


def _groups(results: Iterable[Result]) -> Iterator[list[Result]]:
    group: list[Result] = []
    size = 0
    for result in results:
        group.append(result)
        size += _size(result)
        if len(group) >= _ROWS or size >= _CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _size(result: Result) -> int:
    return (
        len(result.text or "")
        + len(result.reasoning or "")
        + len(result.tool_calls or "")
        + len(result.request or "")
        + len(result.logprobs or "") * _LOGPROBS_WEIGHT
        + len(result.embedding or ()) * _NUMBER
    )


def _columns(group: list[Result]) -> list[pa.Array]:
    requests = [request_of(result.request) for result in group]
    made: dict[str, list[Any]] = {
        "state": [result.state.value for result in group],
        "logprobs": [_parsed(result.logprobs) for result in group],
        "started_at": [_micros(result.started_at) for result in group],
        "finished_at": [_micros(result.finished_at) for result in group],
        "seconds": [duration(result.started_at, result.finished_at) for result in group],
        "prompt": [request.get("prompt") for request in requests],
        "messages": [_json(request.get("messages")) for request in requests],
        "completion": [request.get("completion") for request in requests],
    }
    return [
        _vectors(group)
        if name == "embedding"
        else pa.array(made.get(name) or _plain(group, name), SCHEMA.field(name).type)
        for name in SCHEMA.names
    ]


def _vectors(group: list[Result]) -> pa.Array:
    """As they lie in memory: Python sees no number of them."""
    numbers = array("f")
    starts: list[int | None] = []
    for result in group:
        starts.append(None if result.embedding is None else len(numbers))
        numbers.extend(result.embedding or ())
    values = pa.Array.from_buffers(pa.float32(), len(numbers), [None, pa.py_buffer(numbers)])
    offsets = pa.array([*starts, len(numbers)], pa.int32())
    return pa.ListArray.from_arrays(offsets, values)


def _plain(group: list[Result], name: str) -> list[Any]:
    return [getattr(result, name) for result in group]


def _parsed(logprobs: str | None) -> Any:
    return None if logprobs is None else orjson.loads(logprobs)


def _micros(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e6)


def _json(value: object) -> str | None:
    return None if value is None else dumps(value).decode()
