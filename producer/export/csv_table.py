"""CSV (RFC 4180, UTF-8, CRLF): a row a sample, always the same columns.

A spreadsheet runs a cell that begins like a formula, and a model may write anything. Unless the
output is `raw`, such a cell of text gets an apostrophe in front, as OWASP advises; a program
that reads the file back wants it raw.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator

import orjson

from db.exact_json import dumps
from db.records import Result
from producer.export.fields import duration, iso, request_of

COLUMNS = (
    "id", "custom_id", "line", "state", "sample", "text", "reasoning", "tool_calls",
    "finish_reason", "prompt_tokens", "completion_tokens", "logprobs", "logprob", "perplexity",
    "embedding", "model", "revision", "weights", "tokenizer", "adapter", "engine",
    "engine_version", "backend", "dtype", "device", "hardware", "worker", "seed", "params",
    "attempts", "started_at", "finished_at", "seconds", "error_code", "error_message", "prompt",
    "completion",
)  # fmt: skip

#: What a spreadsheet takes for the start of a formula, at the start of a cell.
FORMULA_STARTS = frozenset("=+-@\t\r")

Cell = str | int | float | None


class _Encoder:
    """What csv.writer writes to: it hands each row back as bytes."""

    def write(self, row: str) -> bytes:
        return row.encode()


def header() -> bytes:
    return ",".join(COLUMNS).encode() + b"\r\n"


def lines(results: Iterable[Result], *, raw: bool) -> Iterator[bytes]:
    write_row = csv.writer(_Encoder(), lineterminator="\r\n").writerow
    for result in results:
        cells = _cells(result)
        row = cells if raw else [guarded(cell) for cell in cells]
        yield write_row(row)  # what _Encoder.write returns


def guarded(cell: Cell) -> Cell:
    """The cell, harmless to a spreadsheet."""
    if isinstance(cell, str) and cell[:1] in FORMULA_STARTS:
        return "'" + cell
    return cell


def _cells(result: Result) -> list[Cell]:
    """In the order of COLUMNS."""
    return [
        result.id,
        result.custom_id,
        result.line,
        result.state.value,
        result.sample,
        result.text,
        result.reasoning,
        result.tool_calls,
        result.finish_reason,
        result.prompt_tokens,
        result.completion_tokens,
        result.logprobs,
        result.logprob,
        result.perplexity,
        None if result.embedding is None else orjson.dumps(result.embedding.tolist()).decode(),
        result.model,
        result.revision,
        result.weights,
        result.tokenizer,
        result.adapter,
        result.engine,
        result.engine_version,
        result.backend,
        result.dtype,
        result.device,
        result.hardware,
        result.worker,
        result.seed,
        result.params,
        result.attempts,
        iso(result.started_at),
        iso(result.finished_at),
        duration(result.started_at, result.finished_at),
        result.error_code,
        result.error_message,
        *_asked(result),
    ]


def _asked(result: Result) -> tuple[str | None, str | None]:
    """The prompt, or a chat's messages as JSON, and the completion that was scored.

    None where there is none, or the request was not asked for.
    """
    request = request_of(result.request)
    if "messages" in request:
        return dumps(request["messages"]).decode(), request.get("completion")
    return request.get("prompt"), request.get("completion")
