"""Results of a batch to a file or to standard output, for `results` and `run`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from db.errors import UsageError
from db.faults import Faults
from db.modes import Mode, as_mode
from db.queries.results import Only
from db.records import Batch
from db.throughput import for_throughput
from producer.counter import counting
from producer.display import for_people, note
from producer.export import check_mode, check_target, format_of, is_stdout, write_pages
from producer.export.formats import ExportFormat
from producer.export.layout import RecordOptions, check_names, layout_of
from producer.export.shards import Folder, plan_of, write_shards
from producer.reading.remote import is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from db.pages import Page
    from producer.client import Client


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What users ask of an export."""

    records: RecordOptions = field(default_factory=RecordOptions)
    only: Only | None = None
    as_finished: bool = False
    raw: bool = False


def check_output(
    output: str | None,
    given_format: str | None,
    *,
    option: str = "--format",
    mode: str | None = None,
    records: RecordOptions | None = None,
    format_known: bool = True,
) -> None:
    """Raise UsageError or OutputError now for what would fail after hours of work.

    `option`: where the caller's users give the format; `mode`: the batch's, None: the lines say.
    Unless `format_known`, what depends on the format is not checked.
    """
    faults = Faults()
    chosen = None
    if format_known:
        chosen = _checked_format(output, given_format, option, faults)
    else:
        faults.of(check_target, output)
    known = Mode.GENERATE if mode is None else as_mode(mode)
    if chosen is not None:
        faults.of(check_mode, known, chosen)
    faults.of(check_records, records or RecordOptions(), chosen, known)
    faults.raise_all()


def _checked_format(
    output: str | None, given_format: str | None, option: str, faults: Faults
) -> ExportFormat | None:
    """The output's format; None where there is none, or none is known."""
    # A folder has no format either, and that it is one says more.
    if faults.passes(check_target, output) or not _is_folder(output):
        return faults.of(format_of, output, given_format, option=option)
    return None


def _is_folder(output: str | None) -> bool:
    return output is not None and (output.endswith("/") or Path(output).is_dir())


def check_records(records: RecordOptions, chosen: ExportFormat | None, mode: Mode) -> None:
    """Raise UsageError with all that the format or the mode has no place for.

    `chosen` of None: what depends on the format is not checked.
    """
    faults = Faults()
    if records.expand and mode is not Mode.GENERATE:
        faults.add(f"--expand is for generated JSON, and this batch is of mode {mode}")
    own = {
        "--provenance": records.provenance,
        "--output-column": bool(records.names),
        "--expand": records.expand,
        "--columns": bool(records.input_columns),
    }
    if chosen == "openai":
        for name, is_given in own.items():
            if is_given:
                faults.add(f"format openai has the fields of OpenAI's alone: leave out {name}")
    elif chosen is not None:
        faults.of(check_names, records, documents=chosen == "jsonl")
    faults.raise_all()


def check_export(
    batch: Batch | None,
    output: str | None,
    given_format: str | None,
    options: ExportOptions,
    *,
    rows_per_file: int | None,
    format_known: bool = True,
) -> None:
    """Raise UsageError with all that an export of the batch could not do.

    Without `batch`, or unless `format_known`, what depends on these is not checked.
    """
    faults = Faults()
    chosen = None
    if rows_per_file is not None:
        faults.of(_check_folder, output)
        chosen = faults.of(_shard_format, given_format) if format_known else None
    elif format_known:
        chosen = _checked_format(output, given_format, "--format", faults)
    else:
        faults.of(check_target, output)
    mode = Mode.GENERATE if batch is None else batch.mode
    faults.of(check_records, options.records, chosen, mode)
    if batch is not None and rows_per_file is not None:
        faults.of(_check_ended, batch)
    if batch is not None and chosen is not None:
        faults.of(check_mode, mode, chosen)
        if chosen != "openai":
            faults.of(layout_of, batch, options.records, documents=chosen == "jsonl")
    faults.raise_all()


def _check_folder(output: str | None) -> None:
    if output is None or is_stdout(output) or is_url(output):
        raise UsageError("--rows-per-file writes into a folder of this machine: name it with -o")


def _check_ended(batch: Batch) -> None:
    if not batch.finished:
        raise UsageError(
            f"{batch.id} is {batch.state}: --rows-per-file is for a batch that has ended: "
            f"'promptmill watch {batch.id}' waits for it"
        )


def check_layout(
    client: Client,
    batch: Batch,
    output: str | None,
    given_format: str | None,
    options: ExportOptions,
    *,
    new: bool,
) -> None:
    """Raise UsageError for what the batch's mode has no place for, and names that clash.

    A `new` batch is deleted then.
    """
    chosen = format_of(output, given_format)
    try:
        check_records(options.records, chosen, batch.mode)
        layout_of(batch, options.records, documents=chosen == "jsonl")
    except UsageError:
        if new and client.batch(batch.id).started_at is None:
            client.cancel(batch.id)
            client.delete(batch.id)
        raise


def export(
    client: Client,
    batch: Batch,
    *,
    output: str | None,
    given_format: str | None,
    options: ExportOptions | None = None,
) -> int:
    """Write what the batch has finished so far; the records written. Raises OutputError.

    Says on standard error what users must know of the columns.
    """
    options = options or ExportOptions()
    check_target(output)
    chosen = format_of(output, given_format)
    check_mode(batch.mode, chosen)
    check_records(options.records, chosen, batch.mode)
    results = client.results(
        batch.id,
        order="finished" if options.as_finished else "input",
        only=options.only,
        # An OpenAI line says whether it answers a chat: that is in the request.
        with_request=options.records.with_prompt or chosen == "openai",
    )
    # A counter would run through the records where both go to one terminal.
    quiet = is_stdout(output) and for_people()
    with counting("writing", quiet=quiet) as on_progress, for_throughput():
        expansion = results.expansion() if options.records.expand else None
        with results.snapshot() as found:
            layout = layout_of(
                found.batch, options.records, documents=chosen == "jsonl", expansion=expansion
            )
            written = write_pages(
                _counted(found.pages, on_progress),
                output,
                format=chosen,
                layout=layout,
                batch=found.batch,
                raw=options.raw,
                beside=client.database.dialect == "sqlite",
                in_order=not options.as_finished,
            )
    for remark in (*layout.remarks(), *(expansion.remarks() if expansion else ())):
        note(remark)
    return written


def export_shards(
    client: Client,
    batch: Batch,
    *,
    folder: str,
    given_format: str | None,
    rows_per_file: int,
    options: ExportOptions,
) -> tuple[int, int]:
    """Write a finished batch to numbered files of a folder; how many records and files."""
    chosen = _shard_format(given_format)
    check_records(options.records, chosen, batch.mode)
    _check_ended(batch)
    results = client.results(
        batch.id,
        order="finished" if options.as_finished else "input",
        only=options.only,
        with_request=options.records.with_prompt,
    )
    with counting("writing") as on_progress, for_throughput():
        expansion = results.expansion() if options.records.expand else None
        with results.snapshot() as found:
            layout = layout_of(
                found.batch, options.records, documents=chosen == "jsonl", expansion=expansion
            )

            def write(pages: Iterator[Page], path: str) -> int:
                return write_pages(
                    pages, path, format=chosen, layout=layout, batch=found.batch,
                    raw=options.raw, with_metadata=False,
                )  # fmt: skip

            given = {
                "format": chosen, "only": options.only, "as_finished": options.as_finished,
                "raw": options.raw,
            }  # fmt: skip
            written = write_shards(
                _counted(found.pages, on_progress),
                Folder(
                    Path(folder), chosen, rows_per_file,
                    plan_of(found.batch, layout, given, rows_per_file),
                ),
                found.batch,
                layout,
                write,
                in_order=not options.as_finished,
            )  # fmt: skip
    for remark in (*layout.remarks(), *(expansion.remarks() if expansion else ())):
        note(remark)
    return written


def _shard_format(given: str | None) -> ExportFormat:
    chosen = format_of("x.parquet", given)
    if chosen == "openai":
        raise UsageError("format openai is for one file: leave out --rows-per-file")
    return chosen


def _counted(pages: Iterator[Page], tell: Callable[[int], None]) -> Iterator[Page]:
    count = 0
    for page in pages:
        yield page
        count += len(page)
        tell(count)
