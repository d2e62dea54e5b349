"""`promptmill worker`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from producer.commands.command import CheckingCommand, bad_options, option_faults
from producer.commands.options import complete_batches
from producer.commands.worker_options import (
    engine_faults,
    engine_setting,
    worker_environment,
    worker_options,
)


@click.command("worker", cls=CheckingCommand)
@worker_options
@click.option("-m", "--model", help="Hub id, folder or GGUF file. Default: PROMPTMILL_MODEL.")
@click.option(
    "--gpus",
    metavar="all|0,2",
    help="One worker process per GPU, or per group of tensor_parallel GPUs.",
)
@click.option("--batch", help="Work on this batch only.", shell_complete=complete_batches)
@click.option(
    "--grace", type=click.FloatRange(0), help="Seconds to finish running work after a stop signal."
)
@click.option("--slots", type=click.IntRange(1, 256), help="Chunks held at once.")
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]),
    help="Lowest level to log. Default: INFO.",
)
def command(gpus: str | None, **options: Any) -> None:
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
    from db.settings import variable

    faults = option_faults()
    batch = options.pop("batch")
    given = faults.of(worker_environment, **options)
    faults.of(_check_gpus, gpus)
    batch_id = None if batch is None else faults.of(_batch_id, str(batch))
    if "engine" not in bad_options():
        faults.if_any(engine_faults, given or engine_setting(options))
    environment = {**os.environ, **faults.checked(given)}
    if batch_id is not None:
        environment[variable("batch")] = batch_id
    how = f"--gpus={gpus}" if gpus else "--keep"
    arguments = [sys.executable, "-P", "-m", "worker", how]
    os.execve(sys.executable, arguments, environment)  # noqa: S606 - our own interpreter and module


def _check_gpus(gpus: str | None) -> None:
    """Raises UsageError; whether there are such GPUs, the worker finds out."""
    from db.errors import UsageError

    if gpus and gpus != "all" and not all(part.strip().isdecimal() for part in gpus.split(",")):
        raise UsageError(f"--gpus {gpus}: give 'all', or numbers as in 0,2")


def _batch_id(batch: str) -> str:
    from producer.client import Client

    with Client() as client:
        return client.batch(batch).id
