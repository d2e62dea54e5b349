"""The command line: a group of commands, each in a file of its own under `producer/commands/`.

The group imports a command only when it is used, so that `--help` is quick; and it is the one
place where an error becomes a line on standard error and an exit code.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import Any

import click

#: Commands in the order in which people meet them, with their line in `promptmill --help`.
COMMANDS: dict[str, str] = {
    "run": "Run a file of prompts from start to end, all in one.",
    "submit": "Queue files of prompts; prints the batch's id.",
    "worker": "Serve a model: take chunks from its queue and generate.",
    "status": "Show a batch or a job.",
    "list": "List batches.",
    "watch": "Follow a batch until it is finished.",
    "results": "Write a batch's results, also while it runs.",
    "pause": "Hold a batch back and free its workers.",
    "resume": "Let a paused batch go on.",
    "cancel": "Stop a batch; finished jobs stay.",
    "retry": "Queue failed jobs again.",
    "delete": "Delete a finished batch and its results.",
    "workers": "Show who is alive, on what, how fast.",
    "doctor": "Check this installation; says what to do.",
    "db": "Look after the database's schema.",
    "completion": "Print the completion script of a shell.",
}


class LazyGroup(click.Group):
    """Commands by name, imported on use; errors as lines."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"producer.commands.{cmd_name}_").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean '{near[0]}'?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and turn what is raised into a message and an exit code."""
        # A reader that closes the pipe early (`| head`) ends us quietly, as with any Unix tool.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        from db.errors import PromptmillError

        try:
            return super().main(*args, **kwargs)
        except PromptmillError as error:
            if _debugging():
                raise
            from producer.display import fail

            fail(error)
            sys.exit(error.exit_code)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings are environment variables, PROMPTMILL_*: see docs/settings.md.",
)
@click.version_option(package_name="promptmill")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def main(debug: bool) -> None:
    """Run large offline batches of LLM prompts.

    \b
    All in one, on this machine:
      promptmill run prompts.jsonl --model openai-community/gpt2 -o results.jsonl

    \b
    Or apart, on as many machines as you like:
      promptmill submit prompts.jsonl --model openai-community/gpt2
      promptmill worker --model openai-community/gpt2
      promptmill watch BATCH
      promptmill results BATCH -o results.jsonl
    """
    if debug:
        os.environ[_DEBUG] = "1"


_DEBUG = "_PROMPTMILL_TRACEBACK"


def _debugging() -> bool:
    return os.environ.get(_DEBUG) == "1"
