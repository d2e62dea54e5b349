"""OpenAI batch output: a line a job, whose body is what the endpoint would have answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import orjson

from db.records import Batch, Result
from db.states import JobState
from producer.export.fields import request_of
from producer.export.openai_logprobs import chat_logprobs, completion_logprobs
from producer.export.openai_responses import response_body

#: Failures that the request itself is to blame for: HTTP 400 at OpenAI.
REFUSED = frozenset(
    {
        "bad_chat",
        "bad_prompt",
        "bad_stop_token",
        "bad_structure",
        "content_filter",
        "empty_prompt",
        "endpoint_refused",
        "invalid_request",
        "no_chat_template",
        "not_rendered",
        "prompt_too_long",
        "unknown_adapter",
        "unknown_token",
        "unsupported_parameter",
    }
)

_NEVER_RUN = {
    JobState.CANCELLED: ("batch_cancelled", "This request was not run: its batch was cancelled."),
    JobState.EXPIRED: ("batch_expired", "This request was not run before its batch expired."),
}


def lines(results: Iterable[Result], batch: Batch | None) -> Iterator[bytes]:
    """The samples of a job must follow each other, as `db.queries.results.stream` gives them.

    Raises ValueError where the results came without their requests.
    """
    defaults = batch.params if batch is not None else {}
    for _, samples in groupby(results, key=attrgetter("id")):
        yield orjson.dumps(_line(list(samples), defaults), option=orjson.OPT_APPEND_NEWLINE)


def _line(samples: Sequence[Result], defaults: Mapping[str, Any]) -> dict[str, Any]:
    job = samples[0]
    response: dict[str, Any] | None = None
    error: dict[str, str | None] | None = None
    if job.state == JobState.SUCCEEDED:
        response = _response(job, 200, _body(samples, defaults))
    elif job.state in _NEVER_RUN:
        code, message = _NEVER_RUN[job.state]
        error = {"code": code, "message": message}
    elif job.error_code in REFUSED:
        response = _response(job, 400, {"error": _refusal(job)})
    else:
        error = {"code": job.error_code, "message": job.error_message}
    return {
        "id": f"batch_req_{job.id}",
        "custom_id": job.custom_id if job.custom_id is not None else job.id,
        "response": response,
        "error": error,
    }


def _response(job: Result, status: int, body: dict[str, Any]) -> dict[str, Any]:
    return {"status_code": status, "request_id": f"req_{job.id}", "body": body}


def _refusal(job: Result) -> dict[str, Any]:
    return {
        "message": job.error_message,
        "type": "invalid_request_error",
        "param": None,
        "code": job.error_code,
    }


def _body(samples: Sequence[Result], defaults: Mapping[str, Any]) -> dict[str, Any]:
    job = samples[0]
    if job.request is None:
        raise ValueError("the openai format needs results with their requests")
    if job.embedding is not None:
        return _embeddings(samples)
    request = request_of(job.request)
    chat = "messages" in request
    params = {**defaults, **request.get("params", {})}
    if request.get("endpoint") is not None:
        return response_body(samples, request, params)
    prompts = [] if chat or not params.get("echo") else _prompts(request)
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{job.id}",
        "object": "chat.completion" if chat else "text_completion",
        "created": int(job.finished_at or 0),
        # As OpenAI's servers name a model that is tuned.
        "model": params.get("adapter") or job.model,
        "choices": [
            _chat_choice(sample)
            if chat
            else _completion_choice(sample, prompts and prompts[at * len(prompts) // len(samples)])
            for at, sample in enumerate(samples)
        ],
        "usage": _usage(samples),
        "system_fingerprint": job.revision,
    }


def _embeddings(samples: Sequence[Result]) -> dict[str, Any]:
    tokens = samples[0].prompt_tokens or 0
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": sample.sample,
                "embedding": sample.embedding.tolist() if sample.embedding is not None else [],
            }
            for sample in samples
        ],
        "model": samples[0].model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _prompts(request: Mapping[str, Any]) -> list[Any]:
    """Each a text or token ids."""
    prompt = request["prompt"]
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    return prompt if several else [prompt]


def _chat_choice(sample: Result) -> dict[str, Any]:
    return {
        "index": sample.sample,
        "message": _message(sample),
        "logprobs": chat_logprobs(sample.logprobs),
        "finish_reason": sample.finish_reason,
    }


def _message(sample: Result) -> dict[str, Any]:
    """With the names that DeepSeek and chat templates have for thinking, and OpenAI for calls."""
    calls = None if sample.tool_calls is None else orjson.loads(sample.tool_calls)
    message: dict[str, Any] = {"role": "assistant", "content": sample.text, "refusal": None}
    if sample.reasoning is not None:
        message["reasoning_content"] = sample.reasoning
    if calls is not None:
        message |= {"content": sample.text or None, "tool_calls": calls}
    return message


def _completion_choice(sample: Result, prompt: Any) -> dict[str, Any]:
    """`prompt`: what `echo` put before the text, if it did."""
    return {
        "index": sample.sample,
        "text": sample.text,
        "logprobs": completion_logprobs(sample.logprobs, _text_start(sample, prompt)),
        "finish_reason": sample.finish_reason,
    }


def _text_start(sample: Result, prompt: Any) -> int:
    """Where in the text the generated part begins.

    The text of token ids is not stored: it is what stands before the generated tokens' own.
    """
    if not prompt or isinstance(prompt, str):
        return len(prompt or "")
    tokens = orjson.loads(sample.logprobs or "[]")
    return max(0, len(sample.text or "") - sum(len(token["token"]) for token in tokens))


def _usage(samples: Sequence[Result]) -> dict[str, int]:
    prompt = samples[0].prompt_tokens or 0
    completion = sum(sample.completion_tokens or 0 for sample in samples)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
