"""Results that follow each other, in columns: cheaper to make and to write than one by one.

As light to import as to send: another process may take pages and know no database.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from db.adapters import used_adapter
from db.input_columns import InputColumn, decoded_rows
from db.modes import Mode
from db.recipe import Recipes
from db.records import Result
from db.states import JobState
from db.vectors import Vector, unpack

_STATES = {state.value: state for state in JobState}
#: The place of a worker's key in a row.
WORKER = 9


class Page(ABC):
    """At least one result."""

    __slots__ = ()

    @property
    @abstractmethod
    def columns(self) -> tuple[Sequence[Any], ...]:
        """A column a field of Result, in their order, each as long as the page. Made anew."""

    @abstractmethod
    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Result]:
        return map(Result._make, zip(*self.columns, strict=True))


@dataclass(frozen=True, slots=True)
class MadePage(Page):
    """Of results that are there already."""

    results: Sequence[Result]

    @property
    def columns(self) -> tuple[Sequence[Any], ...]:
        return tuple(zip(*self.results, strict=True))

    def __len__(self) -> int:
        return len(self.results)


class Maker(NamedTuple):
    """Of a worker, what its results say."""

    revision: str | None
    weights: str | None
    tokenizer: str | None
    #: JSON: name -> digest of each.
    adapters: str | None
    engine: str | None
    engine_version: str | None
    backend: str | None
    dtype: str | None
    device: str | None
    hardware: str | None
    name: str | None


@dataclass(frozen=True, slots=True)
class StoredPage(Page):
    """Of rows as `db.queries.results` finds them."""

    batch: str
    model: str
    #: By the worker's key; None: no worker has done anything for it.
    makers: Mapping[int | None, Maker]
    recipes: Recipes
    rows: Sequence[tuple[Any, ...]]
    #: The batch's; a row's last value is then its text of them, and is decoded here alone.
    input_columns: tuple[InputColumn, ...] = ()

    @property
    def columns(self) -> tuple[Sequence[Any], ...]:
        (
            line, custom_id, state, sample, text, finish_reason, prompt_tokens, completion_tokens,
            logprobs, worker, overrides, attempts, started_at, finished_at, error_code,
            error_message, *rest,
        ) = zip(*self.rows, strict=True)  # fmt: skip
        nothing = (None,) * len(line)
        mode = self.recipes.mode
        logprob = rest.pop(0) if mode is Mode.SCORE else nothing
        embedding = _vectors(rest.pop(0)) if mode is Mode.EMBED else nothing
        reasoning = rest.pop(0) if mode is Mode.GENERATE else nothing
        tool_calls = rest.pop(0) if mode is Mode.GENERATE else nothing
        input_rows = decoded_rows(rest.pop(), self.input_columns) if self.input_columns else nothing
        request = rest.pop() if rest else nothing  # it was not asked for
        revision, weights, tokenizer, adapters, *made = zip(
            *[self.makers[one] for one in worker], strict=True
        )
        seed, params = zip(*map(self._recipe, worker, line, overrides), strict=True)
        return (
            [f"{self.batch}-{one}" for one in line],
            (self.batch,) * len(line),
            line,
            custom_id,
            [_STATES[one] for one in state],
            [one or 0 for one in sample],
            text,
            finish_reason,
            prompt_tokens,
            completion_tokens,
            logprobs,
            (self.model,) * len(line),
            revision,
            weights,
            tokenizer,
            nothing if _none(adapters) else list(map(used_adapter, adapters, params)),
            *made,
            seed,
            params,
            attempts,
            started_at,
            finished_at,
            error_code,
            error_message,
            logprob,
            embedding,
            reasoning,
            tool_calls,
            request,
            input_rows,
        )

    def _recipe(
        self, worker: int | None, line: int, overrides: str | None
    ) -> tuple[int | None, str | None]:
        """Seed and parameters of what a worker has done."""
        return (None, None) if worker is None else self.recipes.of(line, overrides)

    def __len__(self) -> int:
        return len(self.rows)


def _none(column: Sequence[Any]) -> bool:
    return column.count(None) == len(column)


def _vectors(column: Sequence[bytes | None]) -> Sequence[Vector | None]:
    return [None if one is None else unpack(one) for one in column]
