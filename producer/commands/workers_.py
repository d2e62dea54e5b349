"""`promptmill workers`."""

from __future__ import annotations

import socket
import sys

import click

from db.records import Worker
from producer.commands.command import Command
from producer.commands.options import json_option


@click.command("workers", cls=Command)
@click.option("--here", is_flag=True, help="Only workers on this host; exit 1 if there are none.")
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


def _show(workers: list[Worker]) -> None:
    from producer.columns import Column
    from producer.display import columns_table, rate

    columns_table(
        [
            Column("worker", shorten="middle", least=16),
            Column("model", shorten="start", least=20),
            Column("engine", rank=4),
            Column("device", rank=1),
            Column("dtype", rank=5),
            Column("state"),
            Column("running", right=True),
            Column("jobs", rank=3, right=True),
            Column("tok/s", right=True),
            Column("seen", rank=2, right=True),
        ],
        [
            (
                worker.name,
                worker.model,
                worker.engine,
                worker.device,
                worker.dtype,
                _state(worker),
                f"{worker.in_flight}/{worker.capacity}",
                worker.jobs,
                rate(worker.tokens_per_second) or "–",
                f"{worker.silent_for:.0f} s ago",
            )
            for worker in workers
        ],
    )


def _state(worker: Worker) -> str:
    """`ready`; of one that is shutting down, `stops within 26 s`."""
    if worker.stops_at is None:
        return "ready"
    left = worker.stops_at - (worker.heartbeat_at + worker.silent_for)
    return f"stops within {left:.0f} s" if left >= 1 else "stopping"
