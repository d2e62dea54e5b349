"""Parts of a record that several formats write."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from db.exact_json import dumps, loads


def iso(seconds: float | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC, to the millisecond."""
    if seconds is None:
        return None
    whole = int(seconds)
    # To the microsecond first, which is all that a float of this size holds.
    millis = int((seconds - whole) * 1000 + 0.0005)
    if millis == 1000:
        whole, millis = whole + 1, 0
    return _to_the_second(whole) + _MILLIS[millis]


_MILLIS = [f".{millis:03d}Z" for millis in range(1000)]


@lru_cache(maxsize=4096)
def _to_the_second(whole: int) -> str:
    # Records come in order of time, thousands a second: most of the work is done already.
    return datetime.fromtimestamp(whole, UTC).isoformat()[:19]


def duration(started_at: float | None, finished_at: float | None) -> float | None:
    """Seconds from the model's first work on the job to its stored result."""
    if started_at is None or finished_at is None:
        return None
    return round(finished_at - started_at, 6)


def request_of(stored: str | None) -> dict[str, Any]:
    """The stored request; empty where it was not asked for, or the line could not be read.

    A list of prompts is its `prompt`, as it was given.
    """
    request: dict[str, Any] = loads(stored) if stored is not None else {}
    if "prompts" in request:
        request["prompt"] = request.pop("prompts")
    return request


def prompt_text(request: Mapping[str, Any]) -> str | None:
    """Its prompt for a column of texts: token ids and lists as JSON; None: it has none."""
    prompt = request.get("prompt")
    return prompt if prompt is None or isinstance(prompt, str) else dumps(prompt).decode()
