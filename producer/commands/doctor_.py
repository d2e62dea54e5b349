"""`promptmill doctor`."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from producer.commands.options import json_option

_MARKS = {"ok": ("ok", "green"), "warning": ("look", "yellow"), "error": ("bad", "red")}


@click.command("doctor")
@click.option("-m", "--model", help="Check this model's files too. Default: PROMPTMILL_MODEL.")
@json_option
def command(model: str | None, as_json: bool) -> None:
    """Check the database, the broker, devices, memory and the model; say what to do.

    Exit 1 if something is bad.

    \b
    Example:
      promptmill doctor --model openai-community/gpt2
    """
    from db.settings import settings
    from producer.display import emit_json
    from producer.doctor import examine

    bad = False
    for check in examine(settings(), model=model):
        bad = bad or check.state == "error"
        if as_json:
            emit_json(asdict(check))
            continue
        mark, colour = _MARKS[check.state]
        click.echo(f"{click.style(f'{mark:>4}', fg=colour)}  {check.name}: {check.finding}")
        if check.advice:
            click.echo(f"      → {check.advice}")
    if bad:
        sys.exit(1)
