"""Results as the database gives them, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from db.records import Batch, Result
from db.states import BatchState, JobState
from producer.export.layout import Layout, RecordOptions, layout_of

#: Every column that there is.
FULL = RecordOptions(provenance=True, with_prompt=True)

BATCH_ID = "bk3v9xq2h7mz"

LOGPROBS: list[dict[str, Any]] = [
    {
        "token": "Hi",
        "token_id": 7,
        "logprob": -0.5,
        "top": [
            {"token": "Hi", "token_id": 7, "logprob": -0.5},
            {"token": "Ho", "token_id": 8, "logprob": -1.25},
        ],
    },
    {"token": "\ufffd", "token_id": 9, "logprob": -0.75, "top": []},
]


def result(line: int = 1, **changes: Any) -> Result:
    """A succeeded sample; `changes` are fields of Result, `request` also as a mapping."""
    request = changes.get("request")
    if request is not None and not isinstance(request, str):
        changes["request"] = orjson.dumps(request).decode()
    values: dict[str, Any] = {
        "id": f"{BATCH_ID}-{line}",
        "batch": BATCH_ID,
        "line": line,
        "custom_id": None,
        "state": JobState.SUCCEEDED,
        "sample": 0,
        "text": "Hi there",
        "finish_reason": "stop",
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "logprobs": None,
        "model": "org/model",
        "revision": "abc123",
        "weights": "5f" * 32,
        "tokenizer": "a1" * 32,
        "adapter": None,
        "engine": "transformers",
        "engine_version": "5.23.0, torch 2.13.0",
        "backend": "continuous, packed attention",
        "dtype": "float32",
        "device": "cpu",
        "hardware": "x86_64 AVX512",
        "worker": "host:1:x",
        "seed": 2**62 + 1,
        "params": '{"max_tokens":8,"temperature":1.0}',
        "attempts": 1,
        "started_at": 1_760_000_000.25,
        "finished_at": 1_760_000_001.5,
        "error_code": None,
        "error_message": None,
    }
    return Result(**{**values, **changes})


def failure(line: int = 1, code: str = "engine_error", **changes: Any) -> Result:
    """A failed job; `changes` as for `result`."""
    nothing = dict.fromkeys(
        ("text", "finish_reason", "prompt_tokens", "completion_tokens", "started_at")
    )
    values: dict[str, Any] = {
        **nothing,
        "state": JobState.FAILED,
        "error_code": code,
        "error_message": "it broke: try again",
    }
    return result(line, **{**values, **changes})


def batch(**changes: Any) -> Batch:
    values: dict[str, Any] = {
        "key": 1,
        "id": BATCH_ID,
        "name": "night run",
        "model": "org/model",
        "queue": "promptmill.org-model.0",
        "state": BatchState.COMPLETED,
        "priority": 5,
        "params": {},
        "metadata": {},
        "total": 1,
        "succeeded": 1,
        "failed": 0,
        "cancelled": 0,
        "expired": 0,
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "created_at": 1_760_000_000.0,
        "started_at": 1_760_000_000.25,
        "finished_at": 1_760_000_001.5,
        "digest": None,
    }
    return Batch(**{**values, **changes})


def many(count: int, **changes: Any) -> Iterator[Result]:
    """A stream of samples that differ in their lines, and is not in memory."""
    model = result(**changes)
    for line in range(1, count + 1):
        yield model._replace(line=line, id=f"{BATCH_ID}-{line}")


def full_layout(*, documents: bool = True) -> Layout:
    return layout_of(None, FULL, documents=documents)
