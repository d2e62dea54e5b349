"""`promptmill worker`."""

from __future__ import annotations

import os
import sys

import click

from producer.commands.options import complete_batches
from producer.commands.worker_options import worker_environment, worker_options


@click.command("worker")
@worker_options
@click.option("-m", "--model", help="Hub id, folder or GGUF file. Default: PROMPTMILL_MODEL.")
@click.option(
    "--gpus", metavar="all|0,2", help="One worker process per GPU, or per tensor_parallel of them."
)
@click.option("--batch", help="Work on this batch alone.", shell_complete=complete_batches)
@click.option("--grace", type=click.FloatRange(0), help="Seconds to finish in when stopped.")
@click.option("--slots", type=click.IntRange(1, 256), help="Chunks held at once.")
@click.option(
    "--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), help="Default: INFO."
)
def command(gpus: str | None, **options: object) -> None:
    """Serve a model: take chunks from its queue, generate, store the results.

    Start as many as you like, on as many hosts as you like. The first Ctrl-C (SIGTERM) finishes
    what can be finished within the grace and hands the rest back; the second one stops now.
    A worker process that dies is started again.
    The same as 'celery -A worker.app worker' with the settings in the environment.

    \b
    Examples:
      promptmill worker --model openai-community/gpt2 --device cuda:1
      promptmill worker --model openai-community/gpt2 --gpus all
    """
    if options["batch"] is not None:
        from producer.client import Client

        with Client() as client:
            options["batch"] = client.batch(str(options["batch"])).id
    environment = {**os.environ, **worker_environment(**options)}
    how = f"--gpus={gpus}" if gpus else "--keep"
    arguments = [sys.executable, "-P", "-m", "worker", how]
    os.execve(sys.executable, arguments, environment)  # noqa: S606 - our own interpreter and module
