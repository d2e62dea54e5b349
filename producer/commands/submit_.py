"""`promptmill submit`."""

from __future__ import annotations

import sys
from typing import Any

import click

from producer.commands.options import json_option, parameters, submit_options


@click.command("submit")
@submit_options
@click.option("--wait", is_flag=True, help="Wait until it is finished; exit 1 if a job failed.")
@json_option
def command(
    files: tuple[str, ...],
    params: tuple[str, ...],
    metadata: tuple[tuple[str, str], ...],
    wait: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Queue FILES of prompts as one batch; print its id.

    A file is .jsonl, .txt (a prompt a line), .csv, .tsv or .parquet, plain or .gz or .zst; a glob
    or a URL (s3://...); or - for standard input. A line is a text, {"prompt": ...},
    {"messages": [...]}, or a line of an OpenAI batch file. See docs/formats.md.

    \b
    Examples:
      promptmill submit prompts.jsonl --model openai-community/gpt2 -p max_tokens=64
      promptmill submit reviews.csv --template $'Review: {text}\\nSentiment:' -p temperature=0
      BATCH=$(zcat huge.txt.gz | promptmill submit - --model M)
    """
    from producer.client import Client
    from producer.display import emit_json, for_people, note
    from producer.documents import batch_document
    from producer.progress import counting, summary

    with Client() as client:
        with counting("reading") as on_progress:
            done = client.submit_files(
                files,
                params=parameters(params),
                metadata=dict(metadata),
                on_progress=on_progress,
                **options,
            )
        batch = done.batch
        if not done.created:
            note(f"the same content was submitted before: batch {batch.id} is {batch.state}")
        if done.unsent_reason and not client.settings.embedded_broker:
            note(f"stored, but not announced: {done.unsent_reason}. Workers find it by themselves.")
        if wait:
            from producer.following import follow

            batch = follow(client, batch)
        if as_json:
            emit_json({**batch_document(batch), "created": done.created})
        elif not for_people():
            click.echo(batch.id)
        elif wait:
            click.echo(f"{batch.id} {summary(batch)}")
        else:
            _explain(client, batch.id, batch.total, batch.model)
    if wait and batch.succeeded < batch.total:
        sys.exit(1)


def _explain(client: Any, batch: str, total: int, model: str) -> None:
    click.echo(f"{batch}: {total:,} prompts queued for {model}")
    if not any(worker.model == model for worker in client.workers()):
        click.echo(f"No worker serves it yet. Start one: promptmill worker --model {model}")
    click.echo(f"Follow it: promptmill watch {batch}")
