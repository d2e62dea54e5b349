"""An item of the input in two: what makes its request, and what comes back with its results."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from producer.input_columns.header import InputRow, ValueKind
from producer.reading import openai_batch
from producer.reading.data_keys import is_data
from producer.reading.keys import Names
from producer.reading.lines import TableRow
from producer.reading.texts import Refusal, kind

#: Sets of keys that are remembered: the lines of a file mostly have the same.
_REMEMBERED = 1024

ID = "custom_id"


class Splitter:
    """Splits the items of one batch."""

    def __init__(self, names: Names, declared: Collection[str], *, by_template: bool) -> None:
        """`declared`: keys that are data, whatever they are called."""
        self._names = names
        self._declared = frozenset(declared)
        self._by_template = by_template
        self._data: dict[tuple[object, ...], frozenset[object]] = {}

    def split(self, item: object) -> tuple[object, InputRow | None]:
        """What makes the request, and the row's own values; None: it has none. Raises Refusal."""
        if isinstance(item, TableRow):
            return item
        if not isinstance(item, Mapping) or self._is_openai(item):
            return item, None
        keys = tuple(item)
        data = self._data.get(keys)
        if data is None:
            data = self._data_of(keys)
            if len(self._data) < _REMEMBERED:
                self._data[keys] = data
        if not data:
            return item, None
        row = InputRow({key: item[key] for key in keys if key in data}, ValueKind.PYTHON)
        if self._by_template and ID not in self._declared:
            return item, row
        return {key: value for key, value in item.items() if key not in data}, row

    def _data_of(self, keys: tuple[object, ...]) -> frozenset[object]:
        if not self._by_template:
            return frozenset(key for key in keys if is_data(key, self._names, self._declared))
        for key in keys:
            if not isinstance(key, str):
                raise Refusal(f"a column's name is {kind(key)}: it must be text")
        return frozenset(keys) - ({ID} - self._declared)

    def _is_openai(self, item: Mapping[Any, Any]) -> bool:
        """A line of an OpenAI batch file has no columns: its keys are all the API's."""
        return not self._by_template and openai_batch.is_line(item)
