"""The values of a page by output column: what all formats write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from db.exact_json import dumps
from db.input_columns import ABSENT
from db.pages import Page
from db.records import perplexity
from producer.export.fields import duration, prompt_text, request_of
from producer.export.layout import InputSource, Layout, OutputColumn
from producer.export.record_columns import RecordColumn


class Records:
    """One page under a layout. What several columns share is made once."""

    def __init__(self, page: Page, layout: Layout) -> None:
        self._page = page
        self._layout = layout

    def __len__(self) -> int:
        return len(self._page)

    def values(self, column: OutputColumn) -> Sequence[Any]:
        """A value each, as `Result` has it; ABSENT where a record has no such key."""
        source = column.source
        if isinstance(source, RecordColumn):
            derived = _DERIVED.get(source.name)
            return self._page.column(source.name) if derived is None else derived(self)
        if isinstance(source, InputSource):
            return [ABSENT if row is None else row[source.index] for row in self._input_rows]
        return self._answers[source.index]

    def column(self, name: str) -> Sequence[Any]:
        return self._page.column(name)

    def requested(self, name: str) -> Sequence[Any]:
        """What the requests have under a key; None where they lack it."""
        return [request.get(name) for request in self._requests]

    @property
    def prompts(self) -> Sequence[str | None]:
        """Token ids and lists of prompts as JSON."""
        return list(map(prompt_text, self._requests))

    @cached_property
    def _input_rows(self) -> Sequence[Sequence[Any] | None]:
        return self._page.column("columns")

    @cached_property
    def _requests(self) -> list[Mapping[str, Any]]:
        return [request_of(request) for request in self._page.column("request")]

    @cached_property
    def _answers(self) -> list[Sequence[Any]]:
        expansion = self._layout.expansion
        return [] if expansion is None else expansion.cells(self._page)


def _errors(records: Records) -> Sequence[Any]:
    codes, messages = records.column("error_code"), records.column("error_message")
    return [
        code and {"code": code, "message": message}
        for code, message in zip(codes, messages, strict=True)
    ]


def _perplexities(records: Records) -> Sequence[Any]:
    return list(map(perplexity, records.column("logprob"), records.column("completion_tokens")))


def _seconds(records: Records) -> Sequence[Any]:
    return list(map(duration, records.column("started_at"), records.column("finished_at")))


def _dumped(name: str) -> Callable[[Records], Sequence[Any]]:
    def values(records: Records) -> Sequence[Any]:
        return [
            None if value is None else dumps(value).decode() for value in records.requested(name)
        ]

    return values


#: Columns that are no field of Result.
_DERIVED: dict[str, Callable[[Records], Sequence[Any]]] = {
    "error": _errors,
    "perplexity": _perplexities,
    "seconds": _seconds,
    "prompt": lambda records: records.prompts,
    "completion": lambda records: records.requested("completion"),
    "messages": _dumped("messages"),
    "tools": _dumped("tools"),
}
