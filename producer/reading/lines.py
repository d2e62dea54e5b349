"""What a reader gives for each request of a file: a Line, or a BadLine with the reason.

What a reader had to guess is an InputWarning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from producer.input_columns.header import InputRow


class InputWarning(UserWarning):
    """A file may mean something else than what was read."""


class Line(NamedTuple):
    """A valid request. A tuple, as millions of them are made."""

    #: The file's name as it was given; '-' for standard input.
    source: str
    #: From 1: the physical line (jsonl, txt), the record after the header (csv), the row (parquet).
    number: int
    #: Exactly one of `prompt` (text) and `messages` (a list), and `params` where the line
    #: overrides parameters, as `db.sampling.normalise` returned them; `endpoint`, where that alone
    #: says which shape OpenAI gives its answer.
    request: dict[str, Any]
    custom_id: str | None = None
    #: The model that the line itself names.
    model: str | None = None
    #: `/v1/chat/completions` and the like, for the lines of an OpenAI batch file.
    endpoint: str | None = None
    #: JSON of the values that come back with its results, as `jobs.columns` stores them.
    columns: str | None = None


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
    #: As of a Line, where the values could be read.
    columns: str | None = None

    @property
    def message(self) -> str:
        """Where, what and what to do, in one line."""
        if self.unit == "line":
            where = f"{self.source}:{self.number}"
        else:
            where = f"{self.source}: {self.unit} {self.number}"
        return " ".join(f"{where}: {self.reason}".splitlines())


class TableRow(NamedTuple):
    """A row of a table, split into what makes its request and what comes back with its results."""

    request: Mapping[str, Any]
    columns: InputRow


@dataclass(frozen=True, slots=True)
class Flaw:
    """Stands where a file's item should be when the item could not even be decoded."""

    reason: str
    #: What of a table's row could be read.
    row: TableRow | None = None
