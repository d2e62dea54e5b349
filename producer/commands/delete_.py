"""`promptmill delete`."""

from __future__ import annotations

import click

from producer.commands.command import Command
from producer.commands.options import batch_argument, json_option


@click.command("delete", cls=Command)
@batch_argument
@click.option("-y", "--yes", is_flag=True, help="Don't ask for confirmation.")
@json_option
def command(batch: str, yes: bool, as_json: bool) -> None:
    """Delete BATCH, its jobs and its results. It must be finished.

    \b
    Example:
      promptmill delete bk3v9xq2h7mz --yes
    """
    from producer.client import Client
    from producer.display import emit_json, printable

    with Client() as client:
        found = client.batch(batch, unique=True)
        if not yes:
            name = f" ({printable(found.name)})" if found.name else ""
            _ask(f"delete {found.id}{name} and its {found.done:,} results?")
        client.delete(found.id)
    if as_json:
        emit_json({"batch": found.id, "deleted": True})
    else:
        click.echo(f"{found.id} deleted")


def _ask(question: str) -> None:
    """Go on only after a yes. Raises UsageError where nobody is there to ask."""
    from db.errors import UsageError

    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        click.echo(err=True)
        raise UsageError("nobody answered: give --yes to delete without a question") from None
    if not agreed:
        raise click.Abort
