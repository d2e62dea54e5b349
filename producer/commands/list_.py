"""`promptmill list`."""

from __future__ import annotations

import click

from producer.commands.options import json_option


@click.command("list")
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True)
@json_option
def command(limit: int, as_json: bool) -> None:
    """List batches, newest first.

    \b
    Example:
      promptmill list --limit 5
    """
    from producer.client import Client
    from producer.display import clock, emit_json, note, table
    from producer.documents import batch_document

    with Client() as client:
        found = client.batches(limit)
    if as_json:
        for batch in found:
            emit_json(batch_document(batch))
        return
    if not found:
        note("there is no batch: submit one with 'promptmill submit FILE --model MODEL'")
        return
    table(
        ["batch", "name", "state", "done", "failed", "model", "created"],
        [
            (
                batch.id,
                batch.name,
                batch.state,
                f"{batch.run_count}/{batch.total}",
                batch.failed,
                batch.model,
                clock(batch.created_at),
            )
            for batch in found
        ],
    )
