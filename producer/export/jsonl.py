"""JSON Lines: an object a sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from db.records import Result
from producer.export.fields import duration, iso, request_of

#: What of a request is written.
_ASKED = ("prompt", "messages", "completion")


def lines(results: Iterable[Result]) -> Iterator[bytes]:
    for result in results:
        yield orjson.dumps(document(result), option=orjson.OPT_APPEND_NEWLINE)


def document(result: Result) -> dict[str, Any]:
    """The keys are promises to programs; a score's, an embedding's, `logprobs` and
    the request's only where there are any.
    """
    # All at once: a field by its name takes longer.
    (
        id_, _, line, custom_id, state, sample, text, finish_reason, prompt_tokens,
        completion_tokens, logprobs, model, revision, engine, dtype, worker, attempts,
        started_at, finished_at, error_code, error_message, request, logprob, embedding,
    ) = result  # fmt: skip
    written: dict[str, Any] = {
        "id": id_,
        "custom_id": custom_id,
        "line": line,
        "state": state,
        "sample": sample,
        "text": text,
        "finish_reason": finish_reason,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "model": model,
        "revision": revision,
        "engine": engine,
        "dtype": dtype,
        "worker": worker,
        "attempts": attempts,
        "started_at": iso(started_at),
        "finished_at": iso(finished_at),
        "seconds": duration(started_at, finished_at),
        "error": error_code and {"code": error_code, "message": error_message},
    }
    if logprob is not None:
        written["logprob"], written["perplexity"] = logprob, result.perplexity
    if embedding is not None:
        written["embedding"] = embedding.tolist()
    if logprobs is not None:
        written["logprobs"] = orjson.Fragment(logprobs)  # stored as JSON: not parsed again
    if request is not None:
        asked = request_of(request)
        written.update((key, asked[key]) for key in _ASKED if key in asked)
    return written
