"""Any number of records in constant memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest

from db.pages import MadePage
from producer.export import FORMATS, ExportFormat, RecordOptions, write
from producer.export.arrow_table import record_batches
from producer.export.layout import layout_of
from producer.input_columns.arrow_types import input_column
from tests.support.results import LOGPROBS, batch, many

MIB = 1 << 20

#: Records, and what Python may hold at once; the records together are far more.
BOUNDS: dict[ExportFormat, tuple[int, int]] = {
    "jsonl": (50_000, 4 * MIB),
    "csv": (20_000, 4 * MIB),
    "openai": (20_000, 4 * MIB),
    "parquet": (50_000, 40 * MIB),
}


def peak_of(count: int, target: Path, format_: ExportFormat, **changes: str) -> int:
    """Bytes of Python's memory at the worst moment."""
    write(many(1, request='{"prompt":"P"}'), target, format=format_)  # imports are not the point
    tracemalloc.start()
    try:
        assert (
            write(many(count, request='{"prompt":"P"}', **changes), target, format=format_) == count
        )
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("format_", FORMATS)
def test_given_many_records_when_written_then_memory_stays_small(
    format_: ExportFormat, tmp_path: Path
) -> None:
    count, bound = BOUNDS[format_]
    text = "word " * 200
    assert peak_of(count, tmp_path / "out", format_, text=text) < bound < count * len(text)


def test_given_long_logprobs_when_written_as_parquet_then_memory_stays_bounded(
    tmp_path: Path,
) -> None:
    logprobs = json.dumps(LOGPROBS * 500)
    assert peak_of(100, tmp_path / "out", "parquet", logprobs=logprobs) < 40 * MIB


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (pa.list_(pa.float64()), [0.5] * 2_000),
        (pa.list_(pa.list_(pa.float64())), [[0.5] * 20] * 100),
        (pa.list_(pa.string()), ["x" * 80] * 200),
    ],
)
def test_rows_with_long_lists_of_the_input_are_few_in_a_batch(
    type_: pa.DataType, value: object
) -> None:
    column = input_column("v", type_)
    layout = layout_of(batch(input_columns=(column,)), RecordOptions(), documents=False)
    pages = [MadePage(list(many(3_000, columns=[value])))]
    sizes = [rows.num_rows for rows in record_batches(pages, layout)]
    assert sum(sizes) == 3_000
    assert max(sizes) <= 1_100
