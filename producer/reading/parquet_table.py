"""Parquet: a row a request, read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from db.errors import InputError
from producer.reading.columns import TableRules
from producer.reading.lines import Flaw, TableRow
from producer.reading.streams import CHUNK
from producer.reading.texts import shown

_MAGIC = b"PAR1"

#: Bytes that one batch of rows should take, and rows at most.
_BATCH_BYTES = 8 * 2**20
_BATCH_ROWS = 4096


def parquet_items(
    file: IO[bytes], name: str, rules: TableRules
) -> Iterator[tuple[int, TableRow | Flaw]]:
    """Each row's number (from 1) and its cells.

    Holds one batch of rows and one page of each column, whose size the file's writer chose.
    `file` is seekable. A row that can't be read is a Flaw. Raises InputError for a file that is no
    parquet or is cut off, and columns that don't fit.
    """
    if not file.read(1):
        return
    _check_magic(file, name)
    import pyarrow as pa
    import pyarrow.parquet as pq

    from producer.reading.arrow_rows import Piece, arrow_rows, table_columns

    try:
        table = pq.ParquetFile(file, buffer_size=CHUNK, pre_buffer=False)
        schema = table.schema_arrow
        columns = table_columns(schema, rules, name)
        rows = _batch_rows(table.metadata)
        pieces = map(Piece, table.iter_batches(batch_size=rows, use_threads=False))
        yield from arrow_rows(pieces, schema, columns, name, by_template=rules.template is not None)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(name, error) from None


def _check_magic(file: IO[bytes], name: str) -> None:
    """Told here, since pyarrow's words for it mean little to a user."""
    file.seek(0)
    head = file.read(12)
    if not head.startswith(_MAGIC):
        raise InputError(
            f"{name}: not a parquet file (it starts with {shown(head)}): "
            "give it the suffix of what it is, as .jsonl, .csv or .txt"
        )
    size = file.seek(0, 2)
    file.seek(max(0, size - len(_MAGIC)))
    tail = file.read()
    file.seek(0)
    if size < 12 or tail != _MAGIC:
        raise InputError(f"{name}: ends early: this parquet file is cut off, copy it again")


def _damaged(name: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"{name}: can't be read as parquet ({reason}): write the file again")


def _batch_rows(metadata: Any) -> int:
    """Rows of a batch, so that one of average rows takes about _BATCH_BYTES."""
    size = sum(
        metadata.row_group(place).total_byte_size for place in range(metadata.num_row_groups)
    )
    average = size / max(1, metadata.num_rows)
    return max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(1.0, average))))
