"""Tables that a program hands over: data frames and Arrow tables of any library, piece by piece.

None of these libraries is imported: a table is known by its type's name, or by Arrow's PyCapsule
interface, and is read through Arrow. What memory it takes is the table's own.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain, groupby
from typing import Any

import pyarrow as pa
import pyarrow.types as types

from producer.reading.arrow_rows import Piece, arrow_rows, table_columns
from producer.reading.columns import TableRules

#: In messages.
NAME = "<table>"

#: Rows that are converted at once.
_ROWS = 512

#: Types of Python objects that Arrow holds without a change, if all of a column's are of the same.
_EXACT = (str, bytes, bool, int, float, Decimal, datetime.date)


@dataclass(frozen=True, slots=True)
class Table:
    """A table, not read yet."""

    pieces: Callable[[], Iterator[Piece]]
    #: Whether it can be read again.
    repeatable: bool

    def items(self, rules: TableRules) -> Iterator[tuple[int, object]]:
        """Each row with its number, from 1. Raises InputError for columns that don't fit."""
        done = 0
        for schema, group in groupby(self.pieces(), key=lambda piece: piece.batch.schema):
            first, pieces = _peeked(group)
            rows = arrow_rows(
                pieces,
                schema,
                table_columns(schema, rules, NAME, untyped=first.objects),
                NAME,
                by_template=rules.template is not None,
            )
            number = 0
            for number, row in rows:
                yield done + number, row
            done += number


def _peeked(pieces: Iterator[Piece]) -> tuple[Piece, Iterator[Piece]]:
    """The first of them, and all of them."""
    first = next(pieces)
    return first, chain([first], pieces)


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


def _sliced(batches: Iterator[pa.RecordBatch]) -> Iterator[Piece]:
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS):
            yield Piece(batch.slice(start, _ROWS))


def _of_dataset(dataset: Any) -> Iterator[Piece]:
    """Of Hugging Face's datasets."""
    for table in dataset.with_format("arrow").iter(batch_size=_ROWS):
        yield from map(Piece, table.to_batches())


def _of_pandas(frame: Any) -> Iterator[Piece]:
    """The columns, and the index where it has a name."""
    kinds = _pandas_types(frame)
    for rows in _pieces(frame):
        names = [str(name) for name in rows.columns]
        objects = {}
        arrays = []
        for index, (name, kind) in enumerate(zip(names, kinds, strict=True)):
            series = rows.iloc[:, index]
            if kind is None:
                objects[name] = _values(series)
                arrays.append(pa.nulls(len(rows)))
            else:
                arrays.append(_array(series, kind))
        yield Piece(pa.RecordBatch.from_arrays(arrays, names=names), objects)


def _pieces(frame: Any) -> Iterator[Any]:
    named = all(name is not None for name in frame.index.names)
    for start in range(0, len(frame), _ROWS):
        rows = frame.iloc[start : start + _ROWS]
        # A name that is there twice is reported later.
        yield rows.reset_index(allow_duplicates=True) if named else rows


def _array(series: Any, type_: pa.DataType | None) -> pa.Array:
    array = pa.array(series, type_, from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _pandas_types(frame: Any) -> list[pa.DataType | None]:
    """Each column's Arrow type; None where its values have none that holds them as they are."""
    found: dict[int, set[pa.DataType | None]] = {}
    for rows in _pieces(frame):
        for index, dtype in enumerate(rows.dtypes):
            if index not in found or str(dtype) == "object":  # else the type of all rows
                found.setdefault(index, set()).add(_pandas_type(rows.iloc[:, index]))
    return [_common(found[index]) for index in sorted(found)]


def _pandas_type(series: Any) -> pa.DataType | None:
    """The Arrow type of these values; None where none holds them as they are."""
    if str(series.dtype) == "object":
        classes = set(map(type, series[series.notna()]))
        if len(classes) > 1 or not classes.issubset(_EXACT):
            return None
    try:
        return _array(series, None).type
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None


def _common(kinds: set[pa.DataType | None]) -> pa.DataType | None:
    """The type of a column with pieces of these types."""
    known = {kind for kind in kinds if kind is None or not types.is_null(kind)} or {pa.null()}
    return known.pop() if len(known) == 1 else None


def _values(series: Any) -> Sequence[Any]:
    """The values as Python objects, missing ones as None."""
    values = series.astype(object)
    return [_lists(value) for value in values.where(values.notna(), None)]


def _lists(value: Any) -> Any:
    """With lists for NumPy's arrays, as which pandas reads the lists of Parquet."""
    if isinstance(value, dict):
        return {key: _lists(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_lists(inner) for inner in value]
    return _lists(value.tolist()) if _is(value, "numpy", "ndarray") else value
