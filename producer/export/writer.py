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
from producer.export.output import Sink, opened
from producer.export.packing import Packer, packer

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
    raw: bool = False,
) -> int:
    """Write every result; how many records: a sample each, in `openai` a job each.

    `output` is a path, an fsspec URL, or None or `-` for standard output. A name that ends in
    `.gz` or `.zst` is compressed. `batch` names the batch in a Parquet file's metadata, and
    tells `openai` its parameters. `raw` leaves CSV cells as they are, formulas or not.

    The target appears whole at the end or stays as it was; standard output and devices get the
    bytes as they come. Raises OutputError, BrokenPipeError as it is, and what `results` raises.
    """
    return write_pages(_pages(results), output, format=format, batch=batch, raw=raw)


def write_pages(
    pages: Iterable[Page],
    output: str | PathLike[str] | None,
    *,
    format: ExportFormat,  # noqa: A002 - the user's word for it
    batch: Batch | None = None,
    raw: bool = False,
    beside: bool = False,
) -> int:
    """`write` of results that come in pages; `beside`: JSON Lines by a second process."""
    place = None if output is None else fspath(output)
    check_packing(place, format)
    if batch is not None:
        check_mode(batch.mode, format)
    results = chain.from_iterable(pages)
    with opened(place) as sink:
        if format == "parquet":
            from producer.export import parquet

            return parquet.write(results, sink, batch)
        packing = packer(packing_of(place))
        if format == "jsonl":
            with closing(_beside.lines(pages) if beside else jsonl.lines(pages)) as found:
                return _write_lines(found, sink, packing)
        if format == "csv":
            lines = csv_table.lines(results, raw=raw)
            return _write_lines(_one_by_one(lines), sink, packing, csv_table.header())
        return _write_lines(_one_by_one(openai_batch.lines(results, batch)), sink, packing)


def _pages(results: Iterable[Result]) -> Iterator[Page]:
    left = iter(results)
    while some := list(islice(left, _PAGE)):
        yield MadePage(some)


def _one_by_one(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    return zip(repeat(1), lines)


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
