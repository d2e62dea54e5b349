"""`promptmill db`."""

from __future__ import annotations

import click

from producer.commands.options import json_option


@click.group("db")
def command() -> None:
    """Create or upgrade the database schema."""


@command.command("upgrade")
@json_option
def upgrade(as_json: bool) -> None:
    """Create the schema, or bring it to this program's. Safe to run twice, or twice at once.

    \b
    Example:
      PROMPTMILL_DATABASE_URL=postgresql://me@host/mill promptmill db upgrade
    """
    from db.database import Database
    from db.migrate import upgrade as migrate
    from db.settings import redact, settings
    from producer.display import emit_json

    database = Database(settings())
    before, after = migrate(database)
    database.close()
    if as_json:
        emit_json({"before": before, "after": after})
    elif before == after:
        click.echo(f"{redact(database.url)} has schema {after} already")
    else:
        click.echo(f"{redact(database.url)}: schema {before or 'none'} → {after}")
