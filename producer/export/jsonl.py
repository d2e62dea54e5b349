"""JSON Lines: an object a sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from db.records import Result
from producer.export.fields import duration, iso, request_of


def lines(results: Iterable[Result]) -> Iterator[bytes]:
    for result in results:
        yield orjson.dumps(document(result), option=orjson.OPT_APPEND_NEWLINE)


def document(result: Result) -> dict[str, Any]:
    """The keys are promises to programs; `logprobs` and the request only where there are any."""
    written: dict[str, Any] = {
        "id": result.id,
        "custom_id": result.custom_id,
        "line": result.line,
        "state": result.state,
        "sample": result.sample,
        "text": result.text,
        "finish_reason": result.finish_reason,
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "model": result.model,
        "revision": result.revision,
        "engine": result.engine,
        "dtype": result.dtype,
        "worker": result.worker,
        "attempts": result.attempts,
        "started_at": iso(result.started_at),
        "finished_at": iso(result.finished_at),
        "seconds": duration(result),
        "error": _error(result),
    }
    if result.logprobs is not None:
        written["logprobs"] = orjson.Fragment(result.logprobs)  # stored as JSON: not parsed again
    if result.request is not None:
        request = request_of(result)
        written.update((key, request[key]) for key in ("prompt", "messages") if key in request)
    return written


def _error(result: Result) -> dict[str, str | None] | None:
    if result.error_code is None:
        return None
    return {"code": result.error_code, "message": result.error_message}
