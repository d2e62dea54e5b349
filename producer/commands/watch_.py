"""`promptmill watch`."""

from __future__ import annotations

import sys

import click

from db.records import Batch
from producer.commands.command import Command
from producer.commands.options import batch_argument, json_option


@click.command("watch", cls=Command)
@batch_argument
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=0.5,
    show_default=True,
    help="Seconds between updates.",
)
@json_option
def command(batch: str, interval: float, as_json: bool) -> None:
    """Follow BATCH until it is finished; exit 1 if a job failed.

    With --json, print the batch at every change; the last one also has its failures.

    \b
    Example:
      promptmill watch bk3v9xq2h7mz
    """
    from db.patience import patiently
    from producer.client import Client
    from producer.display import echo_wrapped, emit_json, printable
    from producer.documents import batch_document
    from producer.following import follow
    from producer.summary import remarks, summary, summary_document

    with Client() as client:
        found = patiently(lambda: client.batch(batch), client.settings.patience)
        if as_json:
            last: Batch | None = None

            def tell(now: Batch) -> None:
                nonlocal last
                if now != last:
                    ended = summary_document(now, client.failures(now.id)) if now.finished else {}
                    emit_json({**batch_document(now), **ended})
                last = now

            found = client.wait(found.id, on_progress=tell, poll=interval)
        else:
            found = follow(client, found, poll=interval)
            echo_wrapped(f"{found.id} {summary(found)}", indent=2)
            for remark in remarks(found, client.failures(found.id)):
                echo_wrapped(printable(remark), indent=2)
    if found.succeeded < found.total:
        sys.exit(1)
