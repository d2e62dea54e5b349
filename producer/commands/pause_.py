"""`promptmill pause`."""

from __future__ import annotations

import click

from producer.commands.command import Command
from producer.commands.options import batch_argument, json_option


@click.command("pause", cls=Command)
@batch_argument
@json_option
def command(batch: str, as_json: bool) -> None:
    """Pause BATCH and free its workers; unfinished jobs run again later.

    \b
    Example:
      promptmill pause bk3v9xq2h7mz
    """
    from producer.client import Client
    from producer.display import echo_wrapped, emit_json
    from producer.documents import batch_document
    from producer.summary import summary

    with Client() as client:
        found = client.pause(batch)
    if as_json:
        emit_json(batch_document(found))
    else:
        echo_wrapped(f"{found.id} {summary(found)}", indent=2)
