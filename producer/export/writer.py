"""Write a stream of results to where it shall go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain, islice, repeat
from os import PathLike, fspath

from db.pages import MadePage, Page
from db.records import Batch, Result
from producer.export import beside as _beside
from producer.export import csv_table, jsonl, openai_batch
from producer.export.formats import ExportFormat, check_mode, check_packing, packing_of
from producer.export.layout import Layout, RecordOptions, layout_of
from producer.export.metadata import (
    file_metadata,
    metadata_path,
    schema_metadata,
    write_metadata,
)
from producer.export.output import Sink, opened
from producer.export.packing import Packer, packer
from producer.export.provenance import Contributions, file_document

#: Bytes that are gathered before they are packed and written.
_CHUNK = 1 << 18
#: Results that come one by one are written so many at once.
_PAGE = 250


def write(
    results: Iterable[Result],
    output: str | PathLike[str] | None,
    *,
    format: ExportFormat,  # noqa: A002 - the user's word for it
    batch: Batch | None = None,
    options: RecordOptions | None = None,
    raw: bool = False,
) -> int:
    """Write every result; how many records: a sample each, in `openai` a job each.

    `output` is a path, an fsspec URL, or None or `-` for standard output. A name that ends in
    `.gz` or `.zst` is compressed. `batch` decides the columns and is named in the metadata; what
    `Client.results` returns brings its own. `raw` leaves CSV cells as they are, formulas or not.

    The target appears whole at the end or stays as it was, and its metadata file after it;
    standard output and devices get the bytes as they come, and no metadata. Raises OutputError,
    BrokenPipeError as it is, UsageError for `options` that do not fit, and what `results` raises.
    """
    batch = batch or getattr(results, "batch", None)
    documents = format == "jsonl"
    layout = layout_of(batch, options or RecordOptions(), documents=documents)
    return write_pages(_pages(results), output, format=format, layout=layout, batch=batch, raw=raw)


def write_pages(
    pages: Iterable[Page],
    output: str | PathLike[str] | None,
    *,
    format: ExportFormat,  # noqa: A002 - the user's word for it
    layout: Layout,
    batch: Batch | None = None,
    raw: bool = False,
    beside: bool = False,
    in_order: bool = True,
    with_metadata: bool = True,
) -> int:
    """`write` of results that come in pages.

    `beside`: JSON Lines by a second process. `in_order`: the pages are in the order of lines.
    `with_metadata`: what made the records is written, too.
    """
    place = None if output is None else fspath(output)
    check_packing(place, format)
    if batch is not None:
        check_mode(batch.mode, format)
    made_by = Contributions(in_order=in_order)
    watched = made_by.watched(iter(pages))

    def document(records: int) -> dict[str, object]:
        return file_document(batch, layout, made_by, records=records)

    if format == "parquet":
        from producer.export import parquet
        from producer.export.arrow_table import schema_of

        with opened(place) as sink:
            return parquet.write(
                watched,
                sink,
                schema_of(layout).with_metadata(schema_metadata(batch)),
                layout,
                lambda rows: file_metadata(document(rows)) if with_metadata else {},
            )
    beside_it = metadata_path(place) if with_metadata else None
    with opened(place, replaces=beside_it) as sink:
        count = _write_text(watched, sink, place, format, layout, batch, raw=raw, beside=beside)
    if beside_it is not None:
        write_metadata(beside_it, document(count))
    return count


def _write_text(
    pages: Iterator[Page],
    sink: Sink,
    place: str | None,
    format_: ExportFormat,
    layout: Layout,
    batch: Batch | None,
    *,
    raw: bool,
    beside: bool,
) -> int:
    packing = packer(packing_of(place))
    if format_ == "jsonl":
        lines = _beside.lines(pages, layout) if beside else jsonl.lines(pages, layout)
        with closing(lines):
            return _write_lines(lines, sink, packing)
    if format_ == "csv":
        rows = csv_table.lines(pages, layout, raw=raw)
        return _write_lines(rows, sink, packing, csv_table.header(layout, raw=raw))
    results = chain.from_iterable(pages)
    return _write_lines(zip(repeat(1), openai_batch.lines(results, batch)), sink, packing)


def _pages(results: Iterable[Result]) -> Iterator[Page]:
    left = iter(results)
    while some := list(islice(left, _PAGE)):
        yield MadePage(some)


def _write_lines(
    lines: Iterable[tuple[int, bytes]], sink: Sink, packing: Packer, header: bytes = b""
) -> int:
    """`lines`: how many records, and they."""
    count = 0
    waiting = bytearray(header)
    for records, some in lines:
        waiting += some
        count += records
        if len(waiting) >= _CHUNK:
            sink.write(packing.compress(bytes(waiting)))
            waiting.clear()
    sink.write(packing.compress(bytes(waiting)) + packing.flush())
    return count
