"""Results as a table for people: the prompt's end, the text, how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import orjson

from db.chat import text_of
from db.exact_json import loads
from db.records import Result
from producer.display import calls_in_words, measure, table

#: Characters of a prompt and of a text that a table shows.
_PROMPT, _TEXT = 120, 400


def print_table(results: Iterable[Result]) -> None:
    """One row a sample. The results need their requests, and a job's samples follow each other."""
    columns = ["line", "custom_id", "prompt", "text", "tokens", "end"]
    jobs = groupby(results, key=attrgetter("id"))
    table(columns, (row for _, samples in jobs for row in _rows(list(samples))), always=True)


def _rows(samples: Sequence[Result]) -> Iterator[tuple[Any, ...]]:
    """Of a list of prompts each has as many samples, in their order."""
    prompts = _prompts(samples[0].request)
    if len(samples) < len(prompts):  # it failed: none of them has an answer
        prompts = ["; ".join(prompts)]
    for at, result in enumerate(samples):
        yield _row(result, prompts[at * len(prompts) // len(samples)])


def _row(result: Result, prompt: str) -> tuple[Any, ...]:
    return (
        result.line,
        result.custom_id,
        _end(prompt, _PROMPT),
        _start(_outcome(result).strip("\n"), _TEXT),
        result.completion_tokens,
        result.finish_reason or result.state,
    )


def _outcome(result: Result) -> str:
    """What became of it, in words."""
    if result.text is not None:
        return "\n".join(filter(None, [result.text, *_beside(result)]))
    if result.logprob is not None or result.embedding is not None:
        return measure(result.logprob, result.perplexity, result.embedding)
    return f"{result.error_code}: {result.error_message}"


def _beside(result: Result) -> Iterator[str]:
    """Its calls; and where it says nothing, the thinking that it was cut off in."""
    if result.tool_calls is not None:
        yield calls_in_words(orjson.loads(result.tool_calls))
    elif result.reasoning is not None and not result.text:
        yield f"(thinking) {result.reasoning}"


def _prompts(request: str | None) -> list[str]:
    """A completion's prompt, or its list of them, token ids as `[5, 6]`; or a chat's last message.

    One at least.
    """
    stored = loads(request or "{}")
    if "messages" in stored:
        return [text_of(stored["messages"][-1].get("content")) or ""]
    return [str(prompt) for prompt in stored.get("prompts") or [stored.get("prompt", "")]]


def _end(text: str, length: int) -> str:
    return text if len(text) <= length else "…" + text[1 - length :]


def _start(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
