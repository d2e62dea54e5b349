"""The worker's options: each is a setting under another name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import click

from db.faults import Faults
from producer.commands.options import Pair

F = TypeVar("F", bound=Callable[..., Any])

#: As in worker.engine.registry, which is not imported here; a test compares the two.
ENGINES = ("transformers", "keras", "vllm", "openai", "echo")

_OPTIONS = (
    click.option(
        "--engine", type=click.Choice(ENGINES), help="What runs the model. Default: transformers."
    ),
    click.option(
        "--device", metavar="auto|cpu|cuda:N", help="Where the model runs. Default: auto."
    ),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        help="Number type of the weights. Default: auto, the checkpoint's own.",
    ),
    click.option("--revision", help="Commit, branch or tag of a hub model."),
    click.option(
        "--trust-remote-code",
        is_flag=True,
        help="Run code that comes with the model; only if you trust it.",
    ),
    click.option(
        "--adapter",
        "adapters",
        multiple=True,
        type=Pair(),
        metavar="NAME=PATH",
        help="Load a LoRA adapter with the model; repeat it.",
    ),
    click.option("--max-concurrency", type=click.IntRange(1), help="Requests that run at once."),
    click.option(
        "--kv-memory-fraction",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="Share of free memory for the KV cache.",
    ),
)


#: The names under which click hands them over.
WORKER_OPTIONS = (
    "engine", "device", "dtype", "revision", "trust_remote_code", "adapters",
    "max_concurrency", "kv_memory_fraction",
)  # fmt: skip


def worker_options(function: F) -> F:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def worker_environment(**options: object) -> dict[str, str]:
    """The options that were given, as settings. Raises UsageError with every bad value."""
    from db.settings import settings, variable
    from producer.adapters import with_places
    from producer.model_files import canonical_model

    faults = Faults()
    places = cast(tuple[tuple[str, str], ...], options.pop("adapters", ()))
    adapters = faults.of(with_places, settings().adapters, places)
    given = {
        name: value for name, value in options.items() if value is not None and value is not False
    }
    model = given.pop("model", None) or settings().model
    canonical = None if model is None else faults.of(canonical_model, str(model))
    faults.of(_check_values, {**given, "model": canonical, "adapters": adapters})
    faults.raise_all()
    if canonical is not None:
        given["model"] = canonical
    environment = {variable(name): str(value) for name, value in given.items()}
    return {**environment, variable("adapters"): json.dumps(adapters)} if adapters else environment


def _check_values(values: Mapping[str, object]) -> None:
    """Raises SettingsError, with the names of options for those of settings."""
    from db.errors import SettingsError
    from db.settings import settings, variable

    try:
        settings().with_(**values)
    except SettingsError as error:
        options = {variable(name): f"--{name.replace('_', '-')}" for name in values}
        options[variable("adapters")] = "--adapter"
        named = (fault.partition(": ") for fault in error.faults)
        raise SettingsError(
            *(f"{options.get(name, name)}{colon}{reason}" for name, colon, reason in named)
        ) from None


def engine_setting(options: Mapping[str, object]) -> dict[str, str]:
    """The option `--engine` as a setting, where other options are bad."""
    from db.settings import variable

    engine = options.get("engine")
    return {} if engine is None else {variable("engine"): str(engine)}


def engine_faults(environment: Mapping[str, str]) -> None:
    """Raise SettingsError with what a worker under these settings says of its engine's options.

    It is asked in a process of its own, which takes seconds for some engines.
    """
    from db.errors import SettingsError
    from db.settings import variable

    merged = {**os.environ, **environment}
    if not merged.get(variable("engine_options")):
        return
    done = subprocess.run(
        [sys.executable, "-P", "-m", "worker", "--check"],
        env=merged,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == SettingsError.exit_code and (faults := done.stdout.splitlines()):
        raise SettingsError(*faults)
