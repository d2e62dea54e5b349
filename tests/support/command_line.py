"""Whether a command line that some file shows is one that the program takes."""

from __future__ import annotations

from collections.abc import Sequence

import click

from db.faults import Faults
from producer.cli import main
from producer.commands.command import BadOption, option_faults


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
            with context.scope(cleanup=False):
                _raise_first(option_faults())
        command = found
    return context


def _raise_first(faults: Faults) -> None:
    """Raise what click said of the first bad option; the program goes on to look for more."""
    for error in faults.errors:
        if isinstance(error, BadOption):
            raise error.original
