"""`promptmill workers`."""

from __future__ import annotations

import click

from producer.commands.options import json_option


@click.command("workers")
@json_option
def command(as_json: bool) -> None:
    """Show the workers that are alive: device, model, load and speed.

    \b
    Example:
      promptmill workers
    """
    from producer.client import Client
    from producer.display import emit_json, note, table
    from producer.documents import worker_document

    with Client() as client:
        found = client.workers()
    if as_json:
        for worker in found:
            emit_json(worker_document(worker))
        return
    if not found:
        note("no worker is alive: start one with 'promptmill worker --model MODEL'")
        return
    table(
        ["worker", "model", "engine", "device", "dtype", "running", "jobs", "tok/s", "seen"],
        [
            (
                worker.name,
                worker.model,
                worker.engine,
                worker.device,
                worker.dtype,
                f"{worker.in_flight}/{worker.capacity}",
                worker.jobs,
                f"{worker.tokens_per_second:,.0f}",
                f"{worker.silent_for:.0f} s ago",
            )
            for worker in found
        ],
    )
