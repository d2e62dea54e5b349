"""A model's folder and the weights in it, looked at before anything reads them: safetensors alone.

Pickled weights can run any code when loaded. transformers goes by what an index names, so a
stranger's index may name a pickle, or a file outside of the folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from db.errors import ModelLoadError
from db.gguf import is_gguf, local_file
from db.model_paths import nearest_path

#: Files in which PyTorch keeps pickled weights.
_PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")

_INDEX = "model.safetensors.index.json"


def refuse_gguf(engine: str, model: str) -> None:
    """Raise ModelLoadError for a GGUF file, in an engine that reads none."""
    if is_gguf(model) or local_file(Path(model).expanduser()) is not None:
        raise ModelLoadError(
            f"model '{model}' is a GGUF file, which the engine '{engine}' does not read: use "
            "--engine transformers, or the model's safetensors"
        )


def check_folder(model: str) -> None:
    """Tell a path that is wrong from a hub id: both are only text."""
    folder = Path(model).expanduser()
    looks_like_path = model.startswith(("/", "./", "../", "~")) or model.count("/") > 1
    if folder.is_file():
        raise ModelLoadError(
            f"model '{model}' is a file: name the folder that holds config.json, or a .gguf file"
        )
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelLoadError(f"model folder '{model}' has no config.json: it is no checkpoint")
    elif looks_like_path:
        meant = nearest_path(model)
        hint = f": did you mean {meant}?" if meant is not None else ""
        raise ModelLoadError(f"model folder '{model}' does not exist{hint}")


def check_weights(model: str) -> None:
    """Raise ModelLoadError unless this folder's weights are safetensors; a hub id passes."""
    folder = Path(model)
    if not folder.is_dir():
        return
    if any(folder.glob("*.safetensors")):
        _check_index(model, folder / _INDEX)
        return
    pickled = [path.name for pattern in _PICKLED for path in folder.glob(pattern)]
    if pickled:
        raise ModelLoadError(
            f"model folder '{model}' holds only pickled weights ({pickled[0]}), which can run code "
            "when loaded: convert them to safetensors"
        )
    raise ModelLoadError(f"model folder '{model}' holds no weights (*.safetensors)")


def _check_index(model: str, index: Path) -> None:
    if not index.is_file():
        return
    try:
        named = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ModelLoadError(f"model folder '{model}': its {_INDEX} can't be read") from None
    if not all(map(_is_plain, named)):
        raise ModelLoadError(
            f"model folder '{model}': its {_INDEX} names something else than safetensors files of "
            "that folder"
        )


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and "/" not in name
