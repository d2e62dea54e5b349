"""`promptmill doctor`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from producer.commands.command import Command
from producer.commands.options import complete_batches, json_option

if TYPE_CHECKING:
    from producer.doctor import Check

_MARKS = {"ok": ("ok", "green"), "warning": ("look", "yellow"), "error": ("bad", "red")}


@click.command("doctor", cls=Command)
@click.option("-m", "--model", help="Check this model's files too. Default: PROMPTMILL_MODEL.")
@click.option("--audit", "audited", is_flag=True, help="Check every row of the database instead.")
@click.option(
    "--batch",
    metavar="BATCH",
    shell_complete=complete_batches,
    help="Audit this batch only.",
)
@json_option
def command(model: str | None, audited: bool, batch: str | None, as_json: bool) -> None:
    """Check the database, the broker, devices, memory and the model; say what to do.

    With --audit, check instead that no prompt was lost, stranded or stored twice, that every
    counter is right, and that every lease is kept: each row is read, in one snapshot, while
    workers may go on. It takes seconds for a million prompts.

    Exit 1 if something is bad.

    \b
    Examples:
      promptmill doctor --model openai-community/gpt2
      promptmill doctor --audit
      promptmill doctor --audit --batch bk3v9xq2h7mz
    """
    from db.settings import settings
    from producer.doctor import audit_database, examine

    if batch is not None and not audited:
        raise click.UsageError("--batch needs --audit: give both, or leave --batch out")
    if model is not None and audited:
        raise click.UsageError("--model and --audit exclude each other: give one")
    found = settings()
    checks = audit_database(found, batch=batch) if audited else examine(found, model=model)
    if _told(checks, as_json=as_json):
        sys.exit(1)


def _told(checks: Iterable[Check], *, as_json: bool) -> bool:
    """Print each check as soon as it is made; whether one of them is bad."""
    from producer.display import echo_wrapped, emit_json

    bad = False
    for check in checks:
        bad = bad or check.state == "error"
        if as_json:
            emit_json(asdict(check))
            continue
        mark, colour = _MARKS[check.state]
        click.echo(click.style(f"{mark:>4}  ", fg=colour), nl=False)
        echo_wrapped(f"{check.name}: {check.finding}", indent=6, used=6)
        if check.advice:
            echo_wrapped(f"      → {check.advice}", indent=8)
    return bad
