"""`promptmill results`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from db.wording import count_of
from producer.commands.command import CheckingCommand, bad_options, option_faults
from producer.commands.options import FILE, batch_argument, json_option
from producer.commands.output_options import new_names, output_options

if TYPE_CHECKING:
    from db.queries.results import Only
    from db.records import Batch
    from producer.client import Client
    from producer.exporting import ExportOptions


@click.command("results", cls=CheckingCommand)
@batch_argument
@click.option(
    "-o", "--output", metavar="FILE", type=FILE, help="Write to this file, whole or not at all."
)
@click.option(
    "--format",
    "format",
    type=click.Choice(["jsonl", "csv", "parquet", "openai"]),
    help="Default: as the file's name says, otherwise jsonl.",
)
@click.option(
    "--rows-per-file",
    type=click.IntRange(1),
    metavar="N",
    help="Write numbered files of N records into the folder that -o names.",
)
@click.option("--succeeded", is_flag=True, help="Only jobs that succeeded.")
@click.option("--failed", is_flag=True, help="Only jobs that failed.")
@click.option("--truncated", is_flag=True, help="Only texts that were cut at a limit.")
@click.option("--as-finished", is_flag=True, help="Order by completion instead of by input line.")
@click.option("--with-prompt", is_flag=True, help="Add each job's prompt or messages.")
@click.option("--columns", metavar="A,B", help="Only these columns of the input, in this order.")
@output_options
@json_option
def command(
    batch: str,
    output: str | None,
    format: str | None,  # noqa: A002 - click names it after the option
    rows_per_file: int | None,
    succeeded: bool,
    failed: bool,
    truncated: bool,
    as_finished: bool,
    with_prompt: bool,
    columns: str | None,
    provenance: bool,
    no_input_columns: bool,
    output_columns: tuple[tuple[str, str], ...],
    expand: bool,
    raw: bool,
    as_json: bool,
) -> None:
    """Write what BATCH has finished so far: a record a sample, failed jobs with their error.

    A record has the input's columns, then ours. To standard output, or to FILE; what made the
    records goes to FILE.meta.json, or into a Parquet file's metadata. With --json, FILE's name
    and count are printed as JSON.

    \b
    Examples:
      promptmill results bk3v9xq2h7mz -o results.parquet
      promptmill results bk3v9xq2h7mz -o labels.csv --output-column text=label
      promptmill results bk3v9xq2h7mz --format openai | head
      promptmill results bk3v9xq2h7mz -o shards/ --rows-per-file 1000000
      promptmill results bk3v9xq2h7mz --failed
    """
    from producer.client import Client
    from producer.display import emit_json, note
    from producer.export.layout import RecordOptions
    from producer.exporting import ExportOptions, check_export, export

    faults = option_faults()
    only = faults.of(_only, succeeded=succeeded, failed=failed, truncated=truncated)
    records = RecordOptions(
        provenance=provenance,
        with_prompt=with_prompt,
        input_columns=faults.of(_input_columns, columns, no_input_columns=no_input_columns),
        names=new_names(output_columns, faults),
        expand=expand,
    )
    options = ExportOptions(records, only=only, as_finished=as_finished, raw=raw)
    with Client() as client:
        seen = faults.of(client.batch, batch)
        if "rows_per_file" not in bad_options():
            faults.of(
                check_export, seen, output, format, options,
                rows_per_file=rows_per_file, format_known="format" not in bad_options(),
            )  # fmt: skip
        found = faults.checked(seen)
        if rows_per_file is not None:
            _export_shards(
                client, found, str(output), format, rows_per_file, options, as_json=as_json
            )
            return
        written = export(client, found, output=output, given_format=format, options=options)
    if output is not None and as_json:
        emit_json({"batch": found.id, "output": output, "records": written})
    elif output is not None:
        note(f"wrote {written:,} records to {output}")
    elif written == 0:
        yet = "" if found.finished else " yet"
        note(f"{found.id} has no {_SOUGHT[only]}{yet}")


def _export_shards(
    client: Client,
    batch: Batch,
    output: str,
    given_format: str | None,
    rows_per_file: int,
    options: ExportOptions,
    *,
    as_json: bool,
) -> None:
    from producer.display import emit_json, note
    from producer.exporting import export_shards

    records, files = export_shards(
        client, batch, folder=output, given_format=given_format, rows_per_file=rows_per_file,
        options=options,
    )  # fmt: skip
    if as_json:
        emit_json({"batch": batch.id, "output": output, "records": records, "files": files})
    else:
        note(f"wrote {records:,} records to {count_of(files, 'file')} in {output}")


_SOUGHT: dict[Only | None, str] = {
    None: "results",
    "succeeded": "jobs that succeeded",
    "failed": "failed jobs",
    "truncated": "texts that were cut",
}


def _only(**flags: bool) -> Only | None:
    from db.errors import UsageError

    given = [name for name, is_given in flags.items() if is_given]
    if len(given) > 1:
        raise UsageError(f"give one of --{' and --'.join(given)}: they exclude each other")
    return given[0] if given else None  # type: ignore[return-value]


def _input_columns(columns: str | None, *, no_input_columns: bool) -> tuple[str, ...] | None:
    from db.errors import UsageError

    if no_input_columns:
        if columns is not None:
            raise UsageError(
                "--columns chooses input columns, --no-input-columns has none: give one"
            )
        return ()
    return None if columns is None else tuple(name.strip() for name in columns.split(","))
