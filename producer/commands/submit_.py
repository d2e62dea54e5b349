"""`promptmill submit`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from producer.commands.command import CheckingCommand, option_faults
from producer.commands.options import json_option, submit_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db.records import Batch, FailureGroup
    from producer.client import Client


@click.command("submit", cls=CheckingCommand)
@submit_options
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="NAME",
    help="A LoRA adapter of the workers that a line's model may name; repeat it.",
)
@click.option("--wait", is_flag=True, help="Wait until it is finished; exit 1 if a job failed.")
@json_option
def command(
    files: tuple[str, ...],
    adapters: tuple[str, ...],
    wait: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Queue FILES of prompts as one batch; print its id.

    A file is .jsonl, .txt (a prompt a line), .csv, .tsv or .parquet, plain or .gz or .zst; a glob
    or a URL (s3://...); or - for standard input. A line is a text, {"prompt": ...},
    {"messages": [...]}, or a line of an OpenAI batch file; to score, {"prompt": ..., "completion":
    ...}. See docs/formats.md.

    \b
    Examples:
      promptmill submit prompts.jsonl -m openai-community/gpt2 -p max_tokens=64
      promptmill submit reviews.csv --template $'Review: {text}\\nMood:' -p n=4
      BATCH=$(zcat huge.txt.gz | promptmill submit - --model M)
      promptmill submit texts.txt --model M --mode embed -p pooling=last
    """
    from producer.commands.submitting import opened_client, submit_files
    from producer.display import note

    faults = option_faults()
    faults.of(_check_adapters, adapters)
    with opened_client(faults, files, options) as client:
        named = tuple(adapter for adapter in adapters if "=" not in adapter)
        done = submit_files(client, files, faults=faults, adapters=named, **options)
        batch = done.batch
        for remark in done.notes:
            note(remark)
        if not done.created:
            note(f"the same content was submitted before: batch {batch.id} is {batch.state}")
        if done.unsent_reason and not client.settings.embedded_broker:
            note(f"stored, but not announced: {done.unsent_reason}. Workers find it by themselves.")
        if wait:
            from producer.following import follow

            batch = follow(client, batch)
        try:
            _tell(client, batch, created=done.created, waited=wait, as_json=as_json)
        except OSError:
            note(f"batch {batch.id} is {batch.state}, but standard output does not take its id")
            raise
    if wait and batch.succeeded < batch.total:
        sys.exit(1)


def _check_adapters(adapters: tuple[str, ...]) -> None:
    from db.errors import UsageError

    named = [adapter for adapter in adapters if "=" in adapter]
    if named:
        raise UsageError(
            *(
                f"--adapter {adapter}: give the name alone, --adapter {adapter.partition('=')[0]}: "
                "only the workers need to know where the adapter is"
                for adapter in named
            )
        )


def _tell(client: Client, batch: Batch, *, created: bool, waited: bool, as_json: bool) -> None:
    from producer.display import emit_json

    failures = client.failures(batch.id) if waited else []
    if as_json:
        from producer.documents import batch_document
        from producer.summary import summary_document

        ended = summary_document(batch, failures) if waited else {}
        emit_json({**batch_document(batch), **ended, "created": created})
    elif waited:
        _summarise(batch, failures)
    else:
        _tell_what_is_next(client, batch)


def _summarise(batch: Batch, failures: Sequence[FailureGroup]) -> None:
    from producer.display import echo_wrapped, for_people, note, printable
    from producer.summary import remarks, summary

    people = for_people()
    if not people:
        click.echo(batch.id)
    for line in (f"{batch.id} {summary(batch)}", *remarks(batch, failures)):
        if people:
            echo_wrapped(printable(line), indent=2)
        else:
            note(line)


def _tell_what_is_next(client: Client, batch: Batch) -> None:
    from producer.display import for_people, printable
    from producer.following import suggest_worker

    if not for_people():
        click.echo(batch.id)
        suggest_worker(client, batch)
        return
    click.echo(f"{batch.id}: {batch.total:,} prompts queued for {printable(batch.model)}")
    suggest_worker(client, batch)
    click.echo(f"Follow it: promptmill watch {batch.id}")
