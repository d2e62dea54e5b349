"""Which engines there are, by name. Naming one imports nothing; creating one does."""

from __future__ import annotations

import difflib
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from db.errors import SettingsError
from db.extras import install_command
from db.faults import Faults
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

#: Engine name -> the package that it can't do without.
_LIBRARIES: dict[str, str] = {
    "keras": "keras_hub",
    "openai": "openai",
    "transformers": "torch",
    "vllm": "vllm",
}


def engine_names() -> list[str]:
    """Every engine that `create` knows."""
    return sorted(_FACTORIES)


def create(name: str, config: EngineConfig) -> Engine:
    """A new engine, not yet started.

    Raises SettingsError as `check` does, and for an option in `config.options` that the engine
    does not have.
    """
    _check_name(name, config)
    module, _, factory = _FACTORIES[name].partition(":")
    try:
        return cast(Engine, getattr(import_module(module), factory)(config))
    except ModuleNotFoundError as error:
        if name not in _EXTRAS or (error.name or "").startswith("worker"):
            raise
        raise _not_installed(name, str(error.name)) from error


def check(name: str, config: EngineConfig) -> None:
    """Raise SettingsError for an unknown name, for adapters that the engine can't load, and for a
    library that is not installed; nothing is imported for it.
    """
    faults = Faults()
    faults.of(_check_name, name, config)
    library = _LIBRARIES.get(name)
    if library is not None and find_spec(library) is None:
        faults.add(_not_installed(name, library))
    faults.raise_all()


def _check_name(name: str, config: EngineConfig) -> None:
    if name not in _FACTORIES:
        raise SettingsError(_unknown(name))
    if config.adapters and name not in adapter_engines():
        raise SettingsError(
            f"engine '{name}' can't load adapters ({', '.join(config.adapters)}): leave --adapter "
            f"out, or use an engine that can ({', '.join(adapter_engines())})"
        )


def _not_installed(name: str, package: str) -> SettingsError:
    return SettingsError(
        f"engine '{name}' needs the package '{package}', which is not installed: "
        f"{install_command(_EXTRAS[name])}"
    )


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, _FACTORIES, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"PROMPTMILL_ENGINE: unknown engine '{name}': {hint}known: {', '.join(engine_names())}"
