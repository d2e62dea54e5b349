"""`promptmill replay`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from producer.commands.command import Command
from producer.commands.options import Pair, json_option

if TYPE_CHECKING:
    from producer.replaying import Difference, Replay

#: Characters that are shown of a text, from a little before the first that differs.
_BEFORE, _SHOWN = 20, 60


@click.command("replay", cls=Command)
@click.argument("job")
@click.option("--device", metavar="auto|cpu|cuda:N", help="Default: as it was, if it is there.")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    type=Pair(),
    metavar="NAME=PATH",
    help="Where the job's LoRA adapter is.",
)
@json_option
def command(
    job: str, device: str | None, adapters: tuple[tuple[str, str], ...], as_json: bool
) -> None:
    """Run the finished JOB (BATCH-LINE) again, here, and compare the texts.

    With the model, revision, adapter, dtype, parameters and seed that it had, in a process of its
    own; what is stored stays as it is. Exit 0 for the same text, 1 for another one, 2 where it
    can't be replayed.

    \b
    Examples:
      promptmill replay bk3v9xq2h7mz-42
      promptmill replay bk3v9xq2h7mz-42 --device cpu --json
    """
    from db.errors import PromptmillError, UsageError
    from producer.client import Client
    from producer.display import emit_json
    from producer.replaying import replay_document

    try:
        with Client() as client:
            found = client.replay(job, device=device, adapters=dict(adapters))
    except PromptmillError as error:
        # Whatever kept it from a comparison: 1 is for another text alone.
        raise UsageError(error.message) from error
    if as_json:
        emit_json(replay_document(found))
    else:
        _show(found)
    sys.exit(0 if found.same else 1)


def _show(replay: Replay) -> None:
    click.echo(f"{replay.job}: {'the same text' if replay.same else 'another text'}")
    for one in replay.differences:
        _show_difference(one)
    for name in replay.changed:
        stored, here = (
            getattr(made, name) or "not known" for made in (replay.stored, replay.replayed)
        )
        click.echo(f"{name}: {stored} then, {here} now")
    if not (replay.same or replay.changed):
        click.echo(
            "nothing that is recorded differs; below float32, what shares a batch changes the "
            "rounding"
        )


def _show_difference(one: Difference) -> None:
    from producer.display import printable

    click.echo(f"sample {one.sample} differs from character {one.at + 1} on:")
    start = max(0, one.at - _BEFORE)
    for when, text, end in (
        ("then", one.stored, one.stored_finish_reason),
        ("now ", one.replayed, one.replayed_finish_reason),
    ):
        part = printable(text[start : start + _SHOWN].replace("\n", "\\n"))
        dots = "…" if len(text) > start + _SHOWN else ""
        click.echo(f"  {when}  {'…' if start else ''}{part}{dots} ({end})")
