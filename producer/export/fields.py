"""Parts of a record that several formats write."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from db.records import Result


def iso(seconds: float | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC, to the millisecond."""
    if seconds is None:
        return None
    whole, micros = divmod(round(seconds * 1e6), 1_000_000)
    return f"{_to_the_second(whole)}.{micros // 1000:03d}Z"


@lru_cache(maxsize=4096)
def _to_the_second(whole: int) -> str:
    # Records come in order of time, thousands a second: most of the work is done already.
    return datetime.fromtimestamp(whole, UTC).isoformat()[:19]


def duration(result: Result) -> float | None:
    """Seconds from the model's first work on the job to its stored result."""
    if result.started_at is None or result.finished_at is None:
        return None
    return round(result.finished_at - result.started_at, 6)


def request_of(result: Result) -> dict[str, Any]:
    """The stored request; empty where it was not asked for, or the line could not be read."""
    return orjson.loads(result.request) if result.request is not None else {}
