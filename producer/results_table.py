"""Results as a table for people: the prompt's end, the text, how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from db.chat import text_of
from db.exact_json import loads
from db.records import Result
from producer.display import calls_in_words, measure, table

#: Characters of a prompt and of a text that a table shows.
_PROMPT, _TEXT = 120, 400


def print_table(results: Iterable[Result]) -> None:
    """One row a sample. The results need their requests."""
    columns = ["line", "custom_id", "prompt", "text", "tokens", "end"]
    table(columns, map(_row, results), always=True)


def _row(result: Result) -> tuple[Any, ...]:
    return (
        result.line,
        result.custom_id,
        _end(_prompt(result.request), _PROMPT),
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


def _prompt(request: str | None) -> str:
    """A completion's prompt, or a chat's last message."""
    stored = loads(request or "{}")
    if "messages" in stored:
        return text_of(stored["messages"][-1].get("content")) or ""
    return str(stored.get("prompt", ""))


def _end(text: str, length: int) -> str:
    return text if len(text) <= length else "…" + text[1 - length :]


def _start(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
