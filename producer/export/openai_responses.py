"""The body that OpenAI's `/v1/responses` answers with: a Response object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from db.records import Result


def response_body(
    samples: Sequence[Result], request: Mapping[str, Any], params: Mapping[str, Any]
) -> dict[str, Any]:
    """Of one succeeded job; `params` are those in force. Several samples are several messages."""
    job = samples[0]
    cut = any(sample.finish_reason == "length" for sample in samples)
    return {
        "id": f"resp_{job.id}",
        "object": "response",
        "created_at": int(job.finished_at or 0),
        "status": "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "model": params.get("adapter") or job.model,
        "output": [item for sample in samples for item in _items(sample)],
        "parallel_tool_calls": params.get("parallel_tool_calls", True),
        "tool_choice": _tool_choice(params.get("tool_choice", "auto")),
        "tools": [{"type": "function", **tool["function"]} for tool in request.get("tools", ())],
        "usage": _usage(samples),
    }


def _items(sample: Result) -> Iterator[dict[str, Any]]:
    """Its thinking, its text and its calls."""
    name = f"{sample.id}-{sample.sample}"
    status = "incomplete" if sample.finish_reason == "length" else "completed"
    if sample.reasoning is not None:
        thinking = {"type": "reasoning_text", "text": sample.reasoning}
        yield {"id": f"rs_{name}", "type": "reasoning", "summary": [], "content": [thinking]}
    calls = [] if sample.tool_calls is None else orjson.loads(sample.tool_calls)
    if sample.text or not calls:
        text = {"type": "output_text", "text": sample.text or "", "annotations": []}
        yield {
            "id": f"msg_{name}",
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [text],
        }
    for number, call in enumerate(calls):
        yield {
            "id": f"fc_{name}-{number}",
            "type": "function_call",
            "status": status,
            "call_id": call["id"],
            "name": call["function"]["name"],
            "arguments": call["function"]["arguments"],
        }


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, Mapping):
        return {"type": "function", "name": choice["function"]["name"]}
    return choice


def _usage(samples: Sequence[Result]) -> dict[str, Any]:
    prompt = samples[0].prompt_tokens or 0
    completion = sum(sample.completion_tokens or 0 for sample in samples)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }
