"""The worker's options: each is a setting under another name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from producer.commands.options import Pair

F = TypeVar("F", bound=Callable[..., Any])

#: As in worker.engine.registry, which is not imported here; a test compares the two.
ENGINES = ("transformers", "keras", "vllm", "openai", "echo")

_OPTIONS = (
    click.option("--engine", type=click.Choice(ENGINES), help="Default: transformers."),
    click.option("--device", metavar="auto|cpu|cuda:N", help="Default: auto."),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        help="Default: auto, as the checkpoint says.",
    ),
    click.option("--revision", help="Commit, branch or tag of a hub model."),
    click.option(
        "--trust-remote-code", is_flag=True, help="Run code that comes with the model. Careful."
    ),
    click.option(
        "--adapter",
        "adapters",
        multiple=True,
        type=Pair(),
        metavar="NAME=PATH",
        help="Load a LoRA adapter beside the model; repeat it.",
    ),
    click.option("--max-concurrency", type=click.IntRange(1), help="Requests run at once."),
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
    """The options that were given, as settings. Raises SettingsError for a bad value."""
    from db.settings import settings, variable
    from producer.adapters import with_places
    from producer.model_files import canonical_model

    adapters = with_places(
        settings().adapters, cast(tuple[tuple[str, str], ...], options.pop("adapters", ()))
    )
    given = {
        name: value for name, value in options.items() if value is not None and value is not False
    }
    model = given.get("model") or settings().model
    if model is not None:
        given["model"] = canonical_model(str(model))
    settings().with_(**given, adapters=adapters)
    environment = {variable(name): str(value) for name, value in given.items()}
    return {**environment, variable("adapters"): json.dumps(adapters)} if adapters else environment
