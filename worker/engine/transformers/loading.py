"""Loading a checkpoint: device, dtype, weights, tokenizer and revision.

Everything that transformers, torch or the hub raise on the way leaves here as ModelLoadError:
one line that says what was wrong and what to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from db.errors import ModelLoadError, SettingsError
from worker.engine.protocol import EngineConfig
from worker.engine.transformers.memory import is_out_of_memory
from worker.engine.transformers.turns import Turns
from worker.engine.transformers.weight_files import check_weights

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

#: What transformers and the hub raise for a checkpoint that is broken, absent or unknown.
_LOAD_ERRORS = (OSError, ValueError, ImportError, LookupError, TypeError, AttributeError)

#: Above this a tokenizer's model_max_length means "not known" (transformers' own sentinel is
#: 1e30).
_ABSURD_LENGTH = 10**9


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in evaluation mode on its device, with its tokenizer."""

    model: Any
    tokenizer: Any
    device: torch.device
    revision: str | None
    #: Tokens of prompt and text together; None: no limit. Of an encoder-decoder: of the prompt.
    context_length: int | None
    #: Ids that end a text.
    end_ids: frozenset[int]
    #: Whoever computes with the model takes one.
    turns: Turns = field(default_factory=Turns)

    @property
    def encoder_decoder(self) -> bool:
        return bool(self.model.config.is_encoder_decoder)

    @property
    def decoder_start_id(self) -> int | None:
        """What an encoder-decoder's text begins with; None for a model that has no decoder."""
        for owner in (self.model.generation_config, self.model.config.get_text_config()):
            value = getattr(owner, "decoder_start_token_id", None)
            if isinstance(value, int):
                return value
        return None

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")


def load(config: EngineConfig) -> LoadedModel:
    """Load the checkpoint that `config` names.

    Raises ModelLoadError with the reason, and SettingsError for a device or dtype that is none.
    """
    device = pick_device(config.device)
    dtype = _dtype(config.dtype)
    _silence()
    _check_folder(config.model)
    with _translated(config):
        options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
        shape = transformers.AutoConfig.from_pretrained(config.model, **options)
        check_weights(config.model)
        model, report = _model_class(shape).from_pretrained(
            config.model,
            config=shape,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
        _check_complete(config.model, report)
        model = model.to(device).eval()
    tokenizer = _tokenizer(config, options)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        device=device,
        revision=_revision(config.model, shape),
        context_length=context_length(shape, tokenizer),
        end_ids=end_ids(model, tokenizer),
    )


def pick_device(name: str) -> torch.device:
    """The device that a setting means. Raises SettingsError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"device '{name}' is none of auto, cpu, cuda, cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            seen = (
                f"PyTorch sees {count} CUDA device(s)" if count else "PyTorch sees no CUDA device"
            )
            raise SettingsError(f"device '{name}' is not there: {seen}; use --device auto")
    return device


def context_length(shape: Any, tokenizer: Any) -> int | None:
    """Tokens that the model takes; None: no limit is written anywhere.

    The model's own limit counts; the tokenizer's only where the model has none, as it is often
    absurd or meant for another use.
    """
    text = shape.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(text, name, None)
        if isinstance(value, int) and 0 < value < _ABSURD_LENGTH:
            return value
    limit = getattr(tokenizer, "model_max_length", None)
    return int(limit) if limit is not None and 0 < limit < _ABSURD_LENGTH else None


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end a text: the generation config's, else the model's, else the tokenizer's."""
    shape = model.config.get_text_config()
    for owner in (getattr(model, "generation_config", None), shape, tokenizer):
        value = getattr(owner, "eos_token_id", None)
        if value is not None:
            return frozenset(value if isinstance(value, (list, tuple)) else [value])
    return frozenset()


def folder_digest(folder: Path) -> str:
    """12 hex digits that change with the config, or with any tensor's name, shape or place.

    It reads only the headers of the safetensors files, so it is instant on any size; weights
    overwritten in place with the same layout go unnoticed but for the file's length.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.json")):
        if path.name in ("config.json", "generation_config.json"):
            digest.update(path.read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name}:{path.stat().st_size}".encode())
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            digest.update(file.read(length))
    return digest.hexdigest()[:12]


def _model_class(shape: Any) -> Any:
    if shape.is_encoder_decoder:
        return transformers.AutoModelForSeq2SeqLM
    return transformers.AutoModelForCausalLM


def _dtype(name: str) -> torch.dtype | str:
    if name == "auto":
        return name
    if name not in _DTYPES:
        raise SettingsError(f"dtype '{name}' is none of auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _tokenizer(config: EngineConfig, options: dict[str, Any]) -> Any:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(config.model, **options)
    except _LOAD_ERRORS as error:
        raise ModelLoadError(
            f"model '{config.model}' has no tokenizer that can be loaded ({_line(error)}): "
            "put its tokenizer.json beside the weights"
        ) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # made up from the config alone
        raise ModelLoadError(
            f"model '{config.model}' has no tokenizer: put its tokenizer.json beside the weights"
        )
    return tokenizer


def _revision(model: str, shape: Any) -> str | None:
    folder = Path(model)
    if folder.is_dir():
        return folder_digest(folder)
    commit = getattr(shape, "_commit_hash", None)
    return None if commit is None else str(commit)


def _check_folder(model: str) -> None:
    """Tell a path that is wrong from a hub id: both are only text."""
    folder = Path(model).expanduser()
    looks_like_path = model.startswith(("/", "./", "../", "~")) or model.count("/") > 1
    if folder.is_file():
        raise ModelLoadError(f"model '{model}' is a file: name the folder that holds config.json")
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelLoadError(f"model folder '{model}' has no config.json: it is no checkpoint")
    elif looks_like_path:
        raise ModelLoadError(f"model folder '{model}' does not exist")


def _check_complete(model: str, report: dict[str, Any]) -> None:
    """transformers fills weights that are missing with random numbers, and only warns."""
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelLoadError(
            f"model '{model}' lacks {len(missing)} of its weights ({missing[0]}, …): "
            "its config.json and its safetensors files do not belong together"
        )


@contextlib.contextmanager
def _translated(config: EngineConfig) -> Iterator[None]:
    try:
        yield
    except ModelLoadError:
        raise
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise ModelLoadError(
                f"model '{config.model}' does not fit in the memory of device '{config.device}': "
                "use a smaller model, dtype bfloat16 or a larger device"
            ) from error
        raise ModelLoadError(f"model '{config.model}' can't be loaded: {_line(error)}") from error
    except (*_LOAD_ERRORS, SafetensorError, UnpicklingError) as error:
        raise ModelLoadError(_why(config, error)) from error


def _why(config: EngineConfig, error: Exception) -> str:
    text = str(error)
    if "trust_remote_code" in text:
        return (
            f"model '{config.model}' brings its own code: pass --trust-remote-code if you trust it"
        )
    if "safetensors" in text and isinstance(error, OSError):
        return (
            f"model '{config.model}' has no safetensors weights: convert them, pickled weights "
            "are never loaded"
        )
    if isinstance(error, OSError) and not Path(config.model).is_dir():
        return (
            f"model '{config.model}' is neither a folder nor a model id that can be reached on the "
            "hub: check the spelling, the network and, for a gated model, HF_TOKEN"
        )
    return f"model '{config.model}' can't be loaded: {_line(error)}"


def _line(error: Exception) -> str:
    """An error's text on one line, short enough for a message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _silence() -> None:
    """No progress bars and no chatter in a worker's log: errors reach us as exceptions."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
