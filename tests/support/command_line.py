"""Whether a command line that some file shows is one that the program takes."""

from __future__ import annotations

from collections.abc import Sequence

import click

from producer.cli import main


def parse(arguments: Sequence[str]) -> click.Context:
    """Parse `promptmill ARGUMENTS` down to its last sub-command, without running anything.

    Raises click.UsageError, as the program itself would, for what it doesn't know.
    """
    command: click.Command = main
    # Commands keep what they first hear of the context: it must be the program's own.
    context = click.Context(main, info_name="promptmill", **main.context_settings)
    rest = list(arguments)
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        if found is None:
            raise click.UsageError(f"no such command: {name}", context)
        if isinstance(found, click.Group):
            context = click.Context(found, parent=context, info_name=name)
        else:
            context = found.make_context(name, rest, parent=context)
        command = found
    return context
