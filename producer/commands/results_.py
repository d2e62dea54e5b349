"""`promptmill results`."""

from __future__ import annotations

import click

from producer.commands.options import FILE, batch_argument, json_option


@click.command("results")
@batch_argument
@click.option("-o", "--output", metavar="FILE", type=FILE, help="Write here, whole or not at all.")
@click.option(
    "--format",
    "format",
    type=click.Choice(["jsonl", "csv", "parquet", "openai"]),
    help="Default: what the file's name says, else jsonl.",
)
@click.option("--failed", is_flag=True, help="Only jobs that failed.")
@click.option("--as-finished", is_flag=True, help="In the order of finishing, not of the input.")
@click.option("--with-prompt", is_flag=True, help="With each job's prompt or messages.")
@click.option("--raw", is_flag=True, help="CSV cells as they are, formulas too.")
@json_option
def command(
    batch: str,
    output: str | None,
    format: str | None,  # noqa: A002 - click names it after the option
    failed: bool,
    as_finished: bool,
    with_prompt: bool,
    raw: bool,
    as_json: bool,
) -> None:
    """Write what BATCH has finished so far: a record a sample, failed jobs with their error.

    To standard output, or to FILE; with --json, FILE's name and count are printed as JSON.

    \b
    Examples:
      promptmill results bk3v9xq2h7mz -o results.parquet
      promptmill results bk3v9xq2h7mz --format openai | head
      promptmill results bk3v9xq2h7mz --failed
    """
    from producer.client import Client
    from producer.display import emit_json, note
    from producer.exporting import export

    with Client() as client:
        results = client.results(batch)
        written = export(
            client, results.batch, output=output, given_format=format,
            failed_only=failed, as_finished=as_finished, with_prompt=with_prompt, raw=raw,
        )  # fmt: skip
    if output is not None and as_json:
        emit_json({"batch": batch, "output": output, "records": written})
    elif output is not None:
        note(f"wrote {written:,} records to {output}")
    elif written == 0:
        yet = "" if results.batch.finished else " yet"
        note(f"{batch} has no {'failed jobs' if failed else 'results'}{yet}")
