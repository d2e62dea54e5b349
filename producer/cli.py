"""The command line: a group of commands, each in a file of its own under `producer/commands/`.

The group imports a command only when it is used, so that `--help` is quick; and it is the one
place where an error becomes a line on standard error and an exit code.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from db.errors import PromptmillError

#: Commands in the order in which people meet them, with their line in `promptmill --help`.
COMMANDS: dict[str, str] = {
    "run": "Run files of prompts from start to end, in one command.",
    "submit": "Queue files of prompts; prints the batch's id.",
    "worker": "Serve a model: take chunks from its queue and generate.",
    "status": "Show a batch or a job.",
    "list": "List batches.",
    "watch": "Follow a batch until it is finished.",
    "results": "Write a batch's results, even while it runs.",
    "pause": "Pause a batch and free its workers.",
    "resume": "Continue a paused batch.",
    "cancel": "Stop a batch; finished jobs keep their results.",
    "retry": "Queue failed jobs again.",
    "replay": "Run a finished job again, and compare.",
    "delete": "Delete a finished batch and its results.",
    "workers": "Show live workers: device, model, load and speed.",
    "doctor": "Check this installation and say what to fix.",
    "db": "Create or upgrade the database schema.",
    "completion": "Print a completion script for a shell.",
}


#: What a file system says that takes no more bytes; every other write names its file.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class LazyGroup(click.Group):
    """Commands by name, imported on use; errors as lines."""

    #: Show a traceback instead of a line.
    debug = False

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

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; Ctrl-C ends it with the exit code that shells expect.

        A reader that leaves early, as `| head` does, is no failure.
        """
        from producer.pipes import reader_may_leave

        try:
            with reader_may_leave():
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            if not getattr(error, "reported", False):
                click.echo("promptmill: interrupted", err=True)
            ctx.exit(getattr(error, "exit_code", 128 + signal.SIGINT))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and turn what is raised into a message and an exit code."""
        _check_streams()
        _check_packages()
        from db.errors import PromptmillError

        try:
            return super().main(*args, **kwargs)
        except Exception as error:
            if self.debug:
                raise
            from producer.commands.command import BadOption
            from producer.display import fail

            if isinstance(error, BadOption):
                error.original.show()
                sys.exit(error.original.exit_code)
            told = error if isinstance(error, PromptmillError) else _translated(error)
            fail(told)
            sys.exit(told.exit_code)


def _translated(error: Exception) -> PromptmillError:
    from db.errors import OutputError, PromptmillError
    from producer.pipes import silence_stdout

    if isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is None:
        # What is still in its buffer must not fail once more at the very end.
        silence_stdout()
        return OutputError(f"standard output takes no more: {error.strerror}")
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return PromptmillError(
        f"unexpected {what}: 'promptmill --debug …' shows where; please report it"
    )


def _check_streams() -> None:
    """End at once where standard output is closed: results would go nowhere.

    A closed standard error gets the null device, lest the next file that is opened takes its
    number, and messages with it. (Python has None for a stream that was closed.)
    """
    if sys.stderr is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stderr = os.fdopen(2, "w")
    if sys.stdout is None:
        sys.stderr.write("promptmill: standard output is closed: send it somewhere, as in >FILE\n")
        sys.exit(2)


def _check_packages() -> None:
    from promptmill.shadowed import shadowed_package

    problem = shadowed_package()
    if problem is not None:
        sys.stderr.write(f"promptmill: {problem}\n")
        sys.exit(2)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings are environment variables, PROMPTMILL_*; 'promptmill doctor' shows them.",
)
@click.version_option(package_name="promptmill")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """Run large offline batches of LLM prompts.

    \b
    All in one, on this machine:
      promptmill run prompts.jsonl --model openai-community/gpt2 -o results.jsonl

    \b
    Or step by step, on as many machines as you like:
      promptmill submit prompts.jsonl --model openai-community/gpt2
      promptmill worker --model openai-community/gpt2
      promptmill watch BATCH
      promptmill results BATCH -o results.jsonl
    """
    if isinstance(ctx.command, LazyGroup):
        ctx.command.debug = debug
