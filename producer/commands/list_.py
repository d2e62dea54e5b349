"""`promptmill list`."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from db.records import Batch
from db.states import BatchState
from producer.commands.command import Command
from producer.commands.options import Duration, json_option


@click.command("list", cls=Command)
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Batches to show, at most.",
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in BatchState]),
    metavar="STATE",
    help="Only batches in this state; repeat it for several.",
)
@click.option("-m", "--model", metavar="TEXT", help="Only batches of this model: a part of its "
              "name, or a pattern with * and ?.")  # fmt: skip
@click.option("--name", metavar="TEXT", help="Only batches of this name: a part of it, or a "
              "pattern with * and ?.")  # fmt: skip
@click.option(
    "--since", type=Duration(), metavar="2d", help="Only batches that are not older (s, m, h, d)."
)
@json_option
def command(
    limit: int,
    states: tuple[str, ...],
    model: str | None,
    name: str | None,
    since: float | None,
    as_json: bool,
) -> None:
    """List batches, newest first.

    \b
    Examples:
      promptmill list --limit 5
      promptmill list --state in_progress --state queued
      promptmill list --name 'nightly-*' --since 2d --json
    """
    from producer.client import Client
    from producer.display import emit_json, note
    from producer.documents import batch_document

    with Client() as client:
        batches = client.batches(limit, states=states, model=model, name=name, since=since)
    if as_json:
        for batch in batches:
            emit_json(batch_document(batch))
    elif batches:
        _show(batches)
    elif states or model or name or since:
        note("no batch matches: 'promptmill list' without options lists all")
    else:
        note("there is no batch: submit one with 'promptmill submit FILE --model MODEL'")


def _show(batches: Sequence[Batch]) -> None:
    from producer.columns import Column
    from producer.display import age, clock, columns_table, for_people

    now = time.time()
    columns_table(
        [
            Column("batch"),
            Column("name", rank=2, shorten="middle", least=16),
            Column("state"),
            Column("done", right=True),
            Column("failed", right=True),
            Column("model", rank=1, shorten="start", least=16),
            Column("created", rank=3, right=True),
        ],
        [
            (
                batch.id,
                batch.name,
                batch.state,
                _count(batch.run_count) + "/" + _count(batch.total),
                _count(batch.failed),
                batch.model,
                age(batch.created_at, now) if for_people() else clock(batch.created_at),
            )
            for batch in batches
        ],
    )


def _count(number: int) -> str:
    """With separators for people, and plain digits for programs."""
    from producer.display import for_people

    return f"{number:,}" if for_people() else str(number)
