"""What a reader gives for each request of a file: a Line, or a BadLine with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Line(NamedTuple):
    """A valid request. A tuple, as millions of them are made."""

    #: The file's name as it was given; '-' for standard input.
    source: str
    #: From 1: the physical line (jsonl, txt), the record after the header (csv), the row (parquet).
    number: int
    #: Exactly one of `prompt` (text) and `messages` (a list), and `params` where the line
    #: overrides parameters, as `db.sampling.normalise` returned them.
    request: dict[str, Any]
    custom_id: str | None = None
    #: The model that the line itself names.
    model: str | None = None
    #: `/v1/chat/completions` or `/v1/completions`, for the lines of an OpenAI batch file.
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that can't become a request."""

    source: str
    number: int
    #: What is wrong and what to do.
    reason: str
    #: Given where the line had a usable one, so that its failure can be told by it.
    custom_id: str | None = None
    #: What `number` counts: line, record, row or item.
    unit: str = "line"

    @property
    def message(self) -> str:
        """Where, what and what to do, in one line."""
        if self.unit == "line":
            where = f"{self.source}:{self.number}"
        else:
            where = f"{self.source}: {self.unit} {self.number}"
        return " ".join(f"{where}: {self.reason}".splitlines())


@dataclass(frozen=True, slots=True)
class Flaw:
    """Stands where a file's item should be when the item could not even be decoded."""

    reason: str
