"""`promptmill workers`."""

from __future__ import annotations

import socket
import sys

import click

from db.records import Worker
from producer.commands.options import json_option


@click.command("workers")
@click.option("--here", is_flag=True, help="Only this host's; exit 1 if there is none.")
@json_option
def command(here: bool, as_json: bool) -> None:
    """Show the workers that are alive: device, model, load and speed.

    \b
    Examples:
      promptmill workers
      promptmill workers --here
    """
    from producer.client import Client
    from producer.display import emit_json, note
    from producer.documents import worker_document

    with Client() as client:
        found = client.workers()
    if here:
        found = [worker for worker in found if worker.host == socket.gethostname()]
    if as_json:
        for worker in found:
            emit_json(worker_document(worker))
    elif found:
        _show(found)
    else:
        note("no worker is alive: start one with 'promptmill worker --model MODEL'")
    if here and not found:
        sys.exit(1)


def _show(found: list[Worker]) -> None:
    from producer.display import table

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
