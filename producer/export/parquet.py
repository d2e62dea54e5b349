"""Parquet: a row a sample, compressed with Zstandard; what made the rows is in the metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from db.pages import Page
from producer.export.arrow_table import record_batches
from producer.export.layout import Layout
from producer.export.output import Sink


def write(
    pages: Iterable[Page],
    sink: Sink,
    schema: pa.Schema,
    layout: Layout,
    metadata: Callable[[int], Mapping[str, str]],
) -> int:
    """Write a row group at a time; how many rows. `metadata` is asked at the end, with these."""
    count = 0
    writer = pq.ParquetWriter(sink, schema, compression="zstd")
    for batch in record_batches(pages, layout):
        writer.write_batch(batch.replace_schema_metadata(schema.metadata))
        count += batch.num_rows
    writer.add_key_value_metadata(dict(metadata(count)))
    # Not in a `finally`: a file without its footer is known to be cut off.
    writer.close()
    return count
