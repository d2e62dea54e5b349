"""Results that follow each other, in columns: cheaper to make and to write than one by one.

Only the columns that are asked for are made. As light to import as to send: another process may
take pages and know no database.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple, Self

from db.adapters import used_adapter
from db.input_columns import InputColumn, decoded_rows
from db.recipe import Recipes
from db.records import Result
from db.states import JobState
from db.vectors import Vector, unpack

_STATES = {state.value: state for state in JobState}


class Page(ABC):
    """At least one result."""

    __slots__ = ()

    @abstractmethod
    def column(self, name: str) -> Sequence[Any]:
        """The values of a field of Result, a value a record. Made anew."""

    @abstractmethod
    def __getitem__(self, part: slice) -> Self:
        """Some of its records, at least one."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def columns(self) -> tuple[Sequence[Any], ...]:
        """A column a field of Result, in their order."""
        return tuple(self.column(name) for name in Result._fields)

    def __iter__(self) -> Iterator[Result]:
        return map(Result._make, zip(*self.columns, strict=True))

    @abstractmethod
    def origins(self, *, params: bool = True) -> Sequence[Hashable]:
        """A key a record: records of the same key have the same `Origin`.

        `params`: also the same parameters; without them, there are as many keys as workers.
        """

    @abstractmethod
    def origin(self, index: int) -> Origin | None:
        """What made a record; None: no worker has done anything for it."""


class Origin(NamedTuple):
    """What made a record."""

    worker: str
    #: Fields of Result, their adapter included.
    provenance: Mapping[str, str | None]
    #: JSON.
    params: str | None


#: The fields of Result that its worker alone decides, adapter and name aside.
PROVENANCE = (
    "revision", "weights", "tokenizer", "engine", "engine_version", "backend", "dtype", "device",
    "hardware",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MadePage(Page):
    """Of results that are there already."""

    results: Sequence[Result]

    def column(self, name: str) -> Sequence[Any]:
        return list(map(itemgetter(Result._fields.index(name)), self.results))

    def __getitem__(self, part: slice) -> MadePage:
        return MadePage(self.results[part])

    def __len__(self) -> int:
        return len(self.results)

    def origins(self, *, params: bool = True) -> Sequence[Hashable]:
        return [(one.worker, one.adapter, params and one.params) for one in self.results]

    def origin(self, index: int) -> Origin | None:
        one = self.results[index]
        if one.worker is None:
            return None
        made = {name: getattr(one, name) for name in (*PROVENANCE, "adapter")}
        return Origin(one.worker, made, one.params)


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
    #: The name of each value of a row: of a field of Result as it is stored, and besides these
    #: `worker_id` and `overrides`, JSON of the line's own parameters. What is not there is None.
    fields: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    #: The batch's.
    input_columns: tuple[InputColumn, ...] = ()

    def column(self, name: str) -> Sequence[Any]:
        computed = _COMPUTED.get(name)
        return self.stored(name) if computed is None else computed(self)

    def stored(self, name: str) -> Sequence[Any]:
        """A value of each row, as it is stored."""
        if name not in self.fields:
            return (None,) * len(self.rows)
        return list(map(itemgetter(self.fields.index(name)), self.rows))

    def __getitem__(self, part: slice) -> StoredPage:
        return StoredPage(
            self.batch, self.model, self.makers, self.recipes, self.fields, self.rows[part],
            self.input_columns,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.rows)

    def origins(self, *, params: bool = True) -> Sequence[Hashable]:
        workers = self.stored("worker_id")
        return list(zip(workers, self.stored("overrides"), strict=True)) if params else workers

    def origin(self, index: int) -> Origin | None:
        alone = self[index : index + 1]
        maker = self.makers[alone.stored("worker_id")[0]]
        if maker.name is None:
            return None
        made = {name: getattr(maker, name) for name in PROVENANCE}
        made["adapter"] = alone.column("adapter")[0]
        return Origin(maker.name, made, alone.column("params")[0])


def _recipes(page: StoredPage) -> Iterator[tuple[int | None, str | None]]:
    """Seed and parameters of each record that a worker has made."""
    rows = zip(page.stored("worker_id"), page.stored("line"), page.stored("overrides"), strict=True)
    for worker, line, overrides in rows:
        yield (None, None) if worker is None else page.recipes.of(line, overrides)


def _params(page: StoredPage) -> Sequence[str | None]:
    workers, overrides = page.stored("worker_id"), page.stored("overrides")
    if _none(overrides) and None not in workers:
        return [page.recipes.of(0, None)[1]] * len(page)
    return [params for _, params in _recipes(page)]


def _adapters(page: StoredPage) -> Sequence[str | None]:
    if all(maker.adapters is None for maker in page.makers.values()):
        return (None,) * len(page)
    adapters = [page.makers[key].adapters for key in page.stored("worker_id")]
    return list(map(used_adapter, adapters, _params(page)))


def _input_rows(page: StoredPage) -> Sequence[Sequence[Any] | None]:
    stored = page.stored("columns")
    return decoded_rows(stored, page.input_columns) if page.input_columns else stored


def _of_maker(field: str) -> Callable[[StoredPage], Sequence[Any]]:
    def column(page: StoredPage) -> Sequence[Any]:
        values = {key: getattr(maker, field) for key, maker in page.makers.items()}
        if len(values) == 1:
            return list(values.values()) * len(page)
        return [values[key] for key in page.stored("worker_id")]

    return column


#: Fields of Result that are not stored with a job or sample as they are.
_COMPUTED: dict[str, Callable[[StoredPage], Sequence[Any]]] = {
    "id": lambda page: [f"{page.batch}-{line}" for line in page.stored("line")],
    "batch": lambda page: (page.batch,) * len(page),
    "model": lambda page: (page.model,) * len(page),
    "state": lambda page: [_STATES[state] for state in page.stored("state")],
    "sample": lambda page: [sample or 0 for sample in page.stored("sample")],
    "embedding": lambda page: _vectors(page.stored("embedding")),
    "columns": _input_rows,
    "seed": lambda page: [seed for seed, _ in _recipes(page)],
    "params": _params,
    "adapter": _adapters,
    "worker": _of_maker("name"),
    **{name: _of_maker(name) for name in PROVENANCE},
}


def _none(column: Sequence[Any]) -> bool:
    return column.count(None) == len(column)


def _vectors(column: Sequence[bytes | None]) -> Sequence[Vector | None]:
    return [None if one is None else unpack(one) for one in column]
