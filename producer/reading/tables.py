"""Tables that a program hands over: data frames and Arrow tables of any library, piece by piece.

None of these libraries is imported: a table is known by its type's name, or by Arrow's PyCapsule
interface, and is read through Arrow. What memory it takes is the table's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.types as types

from producer.reading.arrow_rows import arrow_rows, table_columns
from producer.reading.columns import TableRules

#: In messages.
NAME = "<table>"

#: Rows that are converted at once.
_ROWS = 512


@dataclass(frozen=True, slots=True)
class Table:
    """A table, not read yet."""

    #: Its rows: record batches, or one mapping a row where a column has no Arrow type.
    pieces: Callable[[], Iterator[pa.RecordBatch | dict[str, Any]]]
    #: Whether it can be read again.
    repeatable: bool

    def items(self, rules: TableRules) -> Iterator[tuple[int, object]]:
        """Each row with its number, from 1. Raises InputError for columns that don't fit."""
        done = 0
        for schema, group in groupby(self.pieces(), key=_schema):
            if schema is None:
                rows: Iterator[tuple[int, object]] = enumerate(group, start=1)
            else:
                rows = arrow_rows(
                    group,
                    schema,
                    table_columns(schema, rules, NAME),
                    NAME,
                    by_template=rules.template is not None,
                )
            number = 0
            for number, row in rows:
                yield done + number, row
            done += number


def _schema(piece: pa.RecordBatch | dict[str, Any]) -> pa.Schema | None:
    return None if isinstance(piece, dict) else piece.schema


def table_of(source: Any) -> Table | None:
    """The table that a program handed over; None: it is none."""
    if _is(source, "pandas", "DataFrame"):
        return Table(lambda: _of_pandas(source), repeatable=True)
    if _is(source, "datasets", "Dataset", "IterableDataset"):
        return Table(lambda: _of_dataset(source), repeatable=_is(source, "datasets", "Dataset"))
    if isinstance(source, pa.RecordBatch):
        return Table(lambda: _sliced(iter([source])), repeatable=True)
    if isinstance(source, pa.RecordBatchReader):
        return Table(lambda: _sliced(source), repeatable=False)
    if _is(source, "pyarrow", "Table", "Dataset"):
        return Table(lambda: _sliced(source.to_batches()), repeatable=True)
    if hasattr(source, "__arrow_c_stream__") and not _is_column(source):
        return Table(lambda: _sliced(pa.RecordBatchReader.from_stream(source)), repeatable=True)
    return None


def _is(source: Any, package: str, *names: str) -> bool:
    """Whether its type, or one that it inherits from, is that of a package."""
    return any(
        kind.__name__ in names and kind.__module__.split(".")[0] == package
        for kind in type(source).__mro__
    )


def is_arrow_column(source: Any) -> bool:
    """Whether it is one column of Arrow, whose values are no Python objects."""
    return isinstance(source, pa.Array | pa.ChunkedArray)


def _is_column(source: Any) -> bool:
    """Whether it is one column, whose values are prompts or requests by themselves."""
    return is_arrow_column(source) or any(
        _is(source, package, "Series", "Index") for package in ("pandas", "polars")
    )


def _sliced(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS):
            yield batch.slice(start, _ROWS)


def _of_dataset(dataset: Any) -> Iterator[pa.RecordBatch]:
    """Of Hugging Face's datasets."""
    for table in dataset.with_format("arrow").iter(batch_size=_ROWS):
        yield from table.to_batches()


def _of_pandas(frame: Any) -> Iterator[pa.RecordBatch | dict[str, Any]]:
    """The columns, and the index where it has a name."""
    schema = _pandas_schema(frame)
    for piece in _pieces(frame):
        if schema is None:
            yield from _records(piece)
        else:
            arrays = [
                _array(piece.iloc[:, index], field.type) for index, field in enumerate(schema)
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _pieces(frame: Any) -> Iterator[Any]:
    named = all(name is not None for name in frame.index.names)
    for start in range(0, len(frame), _ROWS):
        piece = frame.iloc[start : start + _ROWS]
        yield piece.reset_index() if named else piece


def _array(series: Any, type_: pa.DataType | None) -> pa.Array:
    array = pa.array(series, type_, from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _pandas_schema(frame: Any) -> pa.Schema | None:
    """The columns' Arrow types; None where one has values that no Arrow type holds as they are."""
    found: dict[int, set[pa.DataType]] = {}
    names: list[str] = []
    for piece in _pieces(frame):
        names = [str(name) for name in piece.columns]
        for index, dtype in enumerate(piece.dtypes):
            if index in found and str(dtype) != "object":
                continue  # a type for all of its rows
            try:
                found.setdefault(index, set()).add(_array(piece.iloc[:, index], None).type)
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                return None
    fields = []
    for index, name in enumerate(names):
        kinds = {kind for kind in found[index] if not types.is_null(kind)} or {pa.null()}
        if len(kinds) > 1 or types.is_nested(next(iter(kinds))):
            return None
        fields.append(pa.field(name, kinds.pop()))
    return pa.schema(fields)


def _records(piece: Any) -> Iterator[dict[str, Any]]:
    """A mapping a row, missing values as None."""
    names = [str(name) for name in piece.columns]
    columns = []
    for index in range(len(names)):
        values = piece.iloc[:, index].astype(object)
        columns.append([_lists(value) for value in values.where(values.notna(), None)])
    for row in zip(*columns, strict=True):
        yield dict(zip(names, row, strict=True))


def _lists(value: Any) -> Any:
    """With lists for NumPy's arrays, as which pandas reads the lists of Parquet."""
    if isinstance(value, dict):
        return {key: _lists(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_lists(inner) for inner in value]
    return _lists(value.tolist()) if _is(value, "numpy", "ndarray") else value
