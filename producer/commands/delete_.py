"""`promptmill delete`."""

from __future__ import annotations

import click

from producer.commands.options import batch_argument, json_option


@click.command("delete")
@batch_argument
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@json_option
def command(batch: str, yes: bool, as_json: bool) -> None:
    """Delete BATCH, its jobs and its results. It must be finished.

    \b
    Example:
      promptmill delete bk3v9xq2h7mz --yes
    """
    from producer.client import Client
    from producer.display import emit_json

    with Client() as client:
        found = client.batch(batch)
        if not yes:
            _ask(f"delete {batch} and its {found.done:,} results?")
        client.delete(batch)
    if as_json:
        emit_json({"batch": batch, "deleted": True})
    else:
        click.echo(f"{batch} deleted")


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
