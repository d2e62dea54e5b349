"""Which engines there are, by name. Naming one imports nothing; creating one does."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import cast

from db.errors import SettingsError
from worker.engine.parameters import adapter_engines
from worker.engine.protocol import Engine, EngineConfig

#: Engine name -> the class that makes it, as `module:class`.
_FACTORIES: dict[str, str] = {
    "echo": "worker.engine.echo:EchoEngine",
    "openai": "worker.engine.openai_api.engine:OpenAIEngine",
    "keras": "worker.engine.kerashub.engine:KerasEngine",
    "transformers": "worker.engine.transformers.engine:TransformersEngine",
    "vllm": "worker.engine.vllm_engine.engine:VllmEngine",
}

#: Engine name -> the extra of this package that brings what it imports.
_EXTRAS: dict[str, str] = {
    "keras": "keras",
    "openai": "openai",
    "transformers": "worker",
    "vllm": "vllm",
}


def engine_names() -> list[str]:
    """Every engine that `create` knows."""
    return sorted(_FACTORIES)


def create(name: str, config: EngineConfig) -> Engine:
    """A new engine, not yet started.

    Raises SettingsError for an unknown name, for a library that is not installed, for an option
    in `config.options` that the engine does not have, and for adapters that it can't load.
    """
    if name not in _FACTORIES:
        raise SettingsError(_unknown(name))
    if config.adapters and name not in adapter_engines():
        raise SettingsError(
            f"engine '{name}' can't load adapters ({', '.join(config.adapters)}): leave --adapter "
            f"out, or use an engine that can ({', '.join(adapter_engines())})"
        )
    module, _, factory = _FACTORIES[name].partition(":")
    try:
        return cast(Engine, getattr(import_module(module), factory)(config))
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(name)
        if extra is None or (error.name or "").startswith("worker"):
            raise
        raise SettingsError(
            f"engine '{name}' needs the package '{error.name}', which is not installed: "
            f"pip install 'promptmill[{extra}]'"
        ) from error


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, _FACTORIES, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"unknown engine '{name}': {hint}known: {', '.join(engine_names())}"
