"""Loading a checkpoint into KerasHub: device, dtype, weights, tokenizer and revision.

Everything that KerasHub, the framework or the hub raise on the way leaves here as
ModelLoadError: one line that says what was wrong and what to do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import transformers
from safetensors import SafetensorError, safe_open

from db.errors import ModelLoadError, ModelUnavailable, SettingsError
from worker.engine.kerashub.fidelity import check_config, check_parameters
from worker.engine.kerashub.framework import Device, begin, is_out_of_memory, pick_device
from worker.engine.protocol import EngineConfig
from worker.engine.shared.generation_rules import warn_not_followed
from worker.engine.shared.metadata import (
    LOAD_ERRORS,
    context_length,
    end_ids,
    load_tokenizer,
    one_line,
    pinned,
    revision_of,
    silence,
    why_not_loaded,
)
from worker.engine.shared.weight_files import check_folder, check_weights, refuse_gguf

_DTYPES = ("float32", "bfloat16", "float16")

#: Of a hub model, what is fetched: never anything that could run code.
_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model on its device, with the checkpoint's own tokenizer."""

    model: Any
    tokenizer: Any
    device: Device
    dtype: str
    revision: str | None
    #: Where its files lie.
    folder: Path
    #: Tokens of prompt and text together; None: no limit.
    context_length: int | None
    #: Ids that end a text.
    end_ids: frozenset[int]


def load(config: EngineConfig, framework: str, *, insist: bool) -> LoadedModel:
    """Load the checkpoint that `config` names; `insist`: of whatever type it is.

    Raises ModelLoadError with the reason, and SettingsError for a device or dtype that is none.
    """
    if config.dtype not in ("auto", *_DTYPES):
        raise SettingsError(f"dtype '{config.dtype}' is none of auto, {', '.join(_DTYPES)}")
    begin(framework)
    device = pick_device(config.device)
    silence()
    refuse_gguf("keras", config.model)
    check_folder(config.model)
    config = pinned(config)
    with _translated(config):
        options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
        shape = transformers.AutoConfig.from_pretrained(config.model, **options)
        text = shape.get_text_config()
        check_config(config.model, text.to_dict(), insist=insist)
        folder = _folder(config)
        check_weights(str(folder))
        dtype = _dtype(config.dtype, text)
        model = _model(folder, dtype, device)
        tied = bool(getattr(text, "tie_word_embeddings", False))
        check_parameters(config.model, _tensors(folder), tied, model.count_params())
    tokenizer = load_tokenizer(config)
    rules = _generation_config(folder)
    warn_not_followed("keras", rules)
    ends = SimpleNamespace(config=shape, generation_config=rules)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        revision=revision_of(config.model, folder),
        folder=folder,
        context_length=context_length(shape, tokenizer),
        end_ids=end_ids(ends, tokenizer),
    )


def _model(folder: Path, dtype: str, device: Device) -> Any:
    import keras_hub

    with device.scope():
        return keras_hub.models.CausalLM.from_preset(str(folder), preprocessor=None, dtype=dtype)


def _folder(config: EngineConfig) -> Path:
    """Where the checkpoint's files are on this machine, fetched if need be."""
    folder = Path(config.model)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(config.model, revision=config.revision, allow_patterns=_FILES))


def _dtype(wanted: str, text: Any) -> str:
    """The type that the checkpoint names, where nobody says: float32 if it names none."""
    if wanted != "auto":
        return wanted
    named = str(getattr(text, "dtype", None)).removeprefix("torch.")
    return named if named in _DTYPES else "float32"


def _tensors(folder: Path) -> dict[str, list[int]]:
    """The shapes of all tensors; only headers are read."""
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            shapes |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    return shapes


def _generation_config(folder: Path) -> Any:
    if not (folder / "generation_config.json").is_file():
        return None
    return transformers.GenerationConfig.from_pretrained(folder)


@contextlib.contextmanager
def _translated(config: EngineConfig) -> Iterator[None]:
    try:
        yield
    except ModelLoadError:
        raise
    except (*LOAD_ERRORS, MemoryError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise ModelUnavailable(
                f"model '{config.model}' does not fit in the memory of device '{config.device}': "
                "use a smaller model, dtype bfloat16 or a larger device"
            ) from error
        raise ModelLoadError(why_not_loaded(config, error)) from error
    except Exception as error:
        # TensorFlow's errors have no base of Python's own.
        raise ModelUnavailable(
            f"model '{config.model}' can't be loaded: {one_line(error)}"
        ) from error
