"""docs/cli.md, made from the commands themselves: `python -m tests.support.cli_reference`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from producer.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"

_HEAD = """# Commands

Every command and option, made from the program: `--help` after a command shows the same. The \
[settings](settings.md) are environment variables; where one is an option too, the option wins.

A batch is given by its id or by its name. Of several batches of one name, the newest is taken, \
and the command says so; `cancel`, `delete` and `retry` refuse such a name and list the \
candidates. A job is `BATCH-LINE`.

Results and JSON go to standard output, everything else to standard error. Exit codes: `0` done; \
`1` a job failed, or something is broken; `2` the call can't be carried out as it was made; `130` \
after Ctrl-C.
"""


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command below `group` with its whole name, in the order of `--help`."""
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def reference() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(_section(path, one) for path, one in commands(main, "promptmill"))])


def _section(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    parts = [f"## {path}", f"```text\n{usage}\n```", *_paragraphs(command.help or "")]
    options = [one for one in command.params if isinstance(one, click.Option)]
    if options:
        rows = [_row(one, context) for one in options]
        parts.append("\n".join(["| option | what it does |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _paragraphs(text: str) -> Iterator[str]:
    r"""The help's paragraphs; one that begins with \b is kept as it is."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if not paragraph.startswith("\b"):
            yield " ".join(_plain(paragraph).split())
            continue
        title, *lines = paragraph.removeprefix("\b\n").split("\n")
        body = "\n".join(line.removeprefix("  ") for line in lines)
        yield f"{title}\n\n```text\n{body}\n```"


def _row(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    assert record is not None, option.name
    names, words = record
    shown = ", ".join(f"`{name}`" for name in names.split(", ")).replace("|", "\\|")
    return f"| {shown} | {_plain(' '.join(words.split()))} |"


def _plain(text: str) -> str:
    """Without what Markdown would read as its own."""
    return text.replace("<", "&lt;").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(reference(), "utf-8")
