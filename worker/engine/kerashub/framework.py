"""Which framework keras computes with, and on which device."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from db.errors import ModelLoadError, SettingsError

#: Frameworks that an engine takes; keras' own third, PyTorch, is the default engine's.
FRAMEWORKS = ("tensorflow", "jax")

_VARIABLE = "KERAS_BACKEND"


@dataclass(frozen=True, slots=True)
class Device:
    """Where a model computes."""

    #: As promptmill says it: `cpu` or `cuda:N`.
    name: str
    #: As keras says it: `cpu:0` or `gpu:N`.
    keras_name: str

    @property
    def on_cpu(self) -> bool:
        return self.name == "cpu"

    def scope(self) -> AbstractContextManager[Any]:
        """Within it, this thread computes there."""
        import keras

        scope: AbstractContextManager[Any] = keras.device(self.keras_name)
        return scope


def wanted(option: str) -> str:
    """The framework that an option (`auto` or a name) means: else KERAS_BACKEND's, TensorFlow.

    Raises SettingsError for one that this engine does not take.
    """
    name = option if option != "auto" else os.environ.get(_VARIABLE) or FRAMEWORKS[0]
    if name not in FRAMEWORKS:
        raise SettingsError(
            f"{_VARIABLE}={name}: engine 'keras' takes {' or '.join(FRAMEWORKS)}; "
            "for PyTorch use the engine 'transformers'"
        )
    return name


def begin(name: str) -> None:
    """Import keras with that framework; a process has one for good.

    Raises SettingsError if the framework is not installed, ModelLoadError if keras already
    runs with another one.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # C++ chatter, of absent GPUs too
    if "keras" not in sys.modules:
        os.environ[_VARIABLE] = name
    try:
        importlib.import_module(name)
        keras = importlib.import_module("keras")
        importlib.import_module("keras_hub")
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"engine 'keras' on {name} needs the package '{error.name}', which is not installed: "
            f"pip install {error.name}"
        ) from error
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    running = keras.config.backend()
    if running != name:
        raise ModelLoadError(
            f"keras already runs with {running} in this process, so not with {name}: "
            "start a worker of its own"
        )


def version(name: str) -> str:
    """Of everything that computes, as it is recorded with a result."""
    parts = [(one, importlib.import_module(one)) for one in ("keras_hub", "keras", name)]
    return " ".join(f"{one} {module.__version__}" for one, module in parts)


def pick_device(name: str) -> Device:
    """The device that a setting means. Raises SettingsError for one that is not there."""
    import keras

    gpus = _gpus() if name != "cpu" else 0
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    if name == "cpu":
        return Device("cpu", "cpu:0")
    kind, _, index = name.partition(":")
    if kind != "cuda" or not (index or "0").isdecimal():
        raise SettingsError(f"device '{name}' is none of auto, cpu, cuda, cuda:N")
    number = int(index or 0)
    if number >= gpus:
        running = keras.config.backend()
        seen = f"{running} sees {gpus} GPU(s)" if gpus else f"{running} sees no GPU"
        raise SettingsError(f"device '{name}' is not there: {seen}; use --device auto")
    return Device(f"cuda:{number}", f"gpu:{number}")


def _gpus() -> int:
    """How many GPUs the framework sees."""
    import keras

    try:
        gpus = len(keras.distribution.list_devices("gpu"))
    except RuntimeError:  # JAX's answer where there is none
        return 0
    if keras.config.backend() == "tensorflow":
        _share_memory()
    return gpus


def _share_memory() -> None:
    """Let TensorFlow take a GPU's memory as it needs it, not all of it at once."""
    import tensorflow

    for gpu in tensorflow.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):  # it computes already
            tensorflow.config.experimental.set_memory_growth(gpu, True)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on the host or on the device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return True
    text = str(error)
    return "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()
