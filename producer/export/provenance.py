"""What made the records of a file: written once beside them, so that the records can be lean.

Records are grouped by what made them and by their parameters; each group has the lines that it
covers. A seed is a function of its job's id where the parameters name none: `db.sampling.seed_of`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import groupby
from typing import Any

import orjson

from db.pages import Origin, Page
from db.records import Batch
from producer.documents import batch_document
from producer.export.layout import FieldSource, InputSource, Layout

#: Version of the document.
FORMAT = 1
#: Groups beyond which parameters are left out, and runs of lines beyond which these are.
_GROUPS, _RUNS = 200, 20_000


@dataclass(slots=True)
class _Group:
    origin: Origin
    workers: set[str] = field(default_factory=set)
    records: int = 0
    #: First and last line of each run.
    runs: list[tuple[int, int]] = field(default_factory=list)


class Contributions:
    """Who made what, as the pages of a file pass by. Bounded, however many they are."""

    def __init__(self, *, in_order: bool) -> None:
        #: Whether records come by line: lines between two records of a run are not in the file.
        self._in_order = in_order
        self._groups: dict[Hashable, _Group] = {}
        #: A page's key -> its group; None: no worker has done anything for it.
        self._by_key: dict[Hashable, _Group | None] = {}
        self._with_params = True
        self._with_runs = True

    def watched(self, pages: Iterator[Page]) -> Iterator[Page]:
        """The pages, which are looked at on their way."""
        for page in pages:
            self.add(page)
            yield page

    def add(self, page: Page) -> None:
        keys, lines = page.origins(params=self._with_params), page.column("line")
        if self._in_order and keys.count(keys[0]) == len(keys):
            self._add_run(page, keys[0], 0, lines)
        else:
            order = range(len(page))
            by_line = order if self._in_order else sorted(order, key=lines.__getitem__)
            for _, run in groupby(by_line, key=keys.__getitem__):
                members = list(run)
                first = members[0]
                self._add_run(page, keys[first], first, [lines[index] for index in members])
        self._bound()

    def _add_run(self, page: Page, key: Hashable, index: int, lines: Sequence[int]) -> None:
        """Records of one key, of which `index` is one."""
        group = self._group(page, key, index)
        if group is None:
            return
        group.records += len(lines)
        if not self._with_runs:
            return
        if self._in_order:
            group.runs.append((lines[0], lines[-1]))
        else:
            group.runs += [(line, line) for line in lines]
        if len(group.runs) > _RUNS:
            group.runs = _merged(group.runs)

    def document(self) -> list[dict[str, Any]]:
        """A group each, the one with the most records first."""
        groups = sorted(self._groups.values(), key=lambda group: -group.records)
        return [self._described(group, alone=len(groups) == 1) for group in groups]

    def _described(self, group: _Group, *, alone: bool) -> dict[str, Any]:
        made = dict(group.origin.provenance)
        params = group.origin.params if self._with_params else None
        if not self._with_params:
            # Which adapter it was depends on the parameters.
            made.pop("adapter")
        described = {
            "provenance": made,
            "workers": sorted(group.workers),
            "params": None if params is None else orjson.loads(params),
            "records": group.records,
        }
        if not alone:
            described["lines"] = _merged(group.runs) if self._with_runs else None
        return described

    def _group(self, page: Page, key: Hashable, index: int) -> _Group | None:
        if key not in self._by_key:
            origin = page.origin(index)
            self._by_key[key] = None if origin is None else self._group_of(origin)
        return self._by_key[key]

    def _group_of(self, origin: Origin) -> _Group:
        params = origin.params if self._with_params else None
        made = {**origin.provenance}
        if not self._with_params:
            made.pop("adapter", None)
        group = self._groups.setdefault((*made.values(), params), _Group(origin))
        group.workers.add(origin.worker)
        return group

    def _bound(self) -> None:
        if self._with_params and (len(self._groups) > _GROUPS or len(self._by_key) > 50 * _GROUPS):
            self._with_params = False
            before, self._groups, self._by_key = self._groups, {}, {}
            for group in before.values():
                merged = self._group_of(group.origin)
                merged.workers |= group.workers
                merged.records += group.records
                merged.runs += group.runs
        if sum(len(group.runs) for group in self._groups.values()) > 2 * _RUNS:
            for group in self._groups.values():
                group.runs = _merged(group.runs)
            if sum(len(group.runs) for group in self._groups.values()) > _RUNS:
                self._with_runs = False
                for group in self._groups.values():
                    group.runs = []


def _merged(runs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs in order, those that touch made one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(runs):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def file_document(
    batch: Batch | None, layout: Layout, contributions: Contributions, *, records: int
) -> dict[str, Any]:
    """All that a file's records leave out."""
    return {
        "object": "results",
        "format": FORMAT,
        "promptmill": version("promptmill"),
        "batch": None if batch is None else {**batch_document(batch), "digest": batch.digest},
        "records": records,
        "columns": [_column_document(column.name, column.source) for column in layout.columns],
        "input_columns": [asdict(column) for column in batch.input_columns] if batch else [],
        "made_by": contributions.document(),
    }


def _column_document(name: str, source: object) -> dict[str, Any]:
    """Where a column comes from."""
    if isinstance(source, InputSource):
        return {"name": name, "input": source.column.name}
    if isinstance(source, FieldSource):
        return {"name": name, "answer": source.field.name}
    return {"name": name, "result": getattr(source, "name", name)}
