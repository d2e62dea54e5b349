"""Whether a worker of this machine can load a model at all, judged by its files alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from db.errors import UsageError
from db.gguf import is_gguf
from producer.model_files import canonical_model, find_model, load_problems

#: The engine that repeats its prompt, and the name that its model commonly has.
ECHO = "echo"

#: Engines that read no files of a model here.
ENGINES_WITHOUT_FILES = frozenset({ECHO, "openai"})


def check_servable(model: str, engine: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raise UsageError where a worker that starts here could only fail to load `model`."""
    if engine in ENGINES_WITHOUT_FILES:
        return
    name = canonical_model(model)
    files = find_model(name, environment)
    if files is None:
        if name.startswith("/"):
            kind = "file" if is_gguf(name) else "folder"
            raise UsageError(f"model {name}: no such {kind} on this machine: check the path")
        if hub_is_forbidden(environment):
            raise UsageError(
                f"model {name} is not on this machine, and HF_HUB_OFFLINE forbids downloading it: "
                "unset that, or give a local folder"
            )
    elif Path(name).exists() and (problems := load_problems(files)):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UsageError(f"model {problems[0]}{more}")


def hub_is_forbidden(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a variable keeps Hugging Face's libraries from the network; their own rule."""
    value = environment.get("HF_HUB_OFFLINE") or environment.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}
