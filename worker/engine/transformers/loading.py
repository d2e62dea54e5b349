"""Loading a checkpoint: device, dtype, weights, tokenizer and revision.

Everything that transformers, torch or the hub raise on the way leaves here as ModelLoadError:
one line that says what was wrong and what to do.
"""

from __future__ import annotations

import contextlib
import platform
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
from worker.engine.shared.metadata import (
    LOAD_ERRORS,
    check_folder,
    context_length,
    end_ids,
    folder_of,
    load_tokenizer,
    one_line,
    revision_of,
    silence,
    why_not_loaded,
)
from worker.engine.shared.weight_files import check_weights
from worker.engine.transformers.lora import Adapters
from worker.engine.transformers.memory import is_out_of_memory
from worker.engine.transformers.parallel.plan import Shard
from worker.engine.transformers.parallel.team import Alone
from worker.engine.transformers.turns import Turns

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in evaluation mode on its device, with its tokenizer."""

    model: Any
    tokenizer: Any
    device: torch.device
    revision: str | None
    #: Where its files lie; None where the hub's cache does not tell.
    folder: Path | None
    #: Tokens of prompt and text together; None: no limit. Of an encoder-decoder: of the prompt.
    context_length: int | None
    #: Ids that end a text.
    end_ids: frozenset[int]
    #: Of the whole model, whatever of it is on this device.
    parameters: int
    #: The other devices that have a part of it.
    team: Alone = field(default_factory=Alone)
    #: Whoever computes with the model takes one.
    turns: Turns = field(default_factory=Turns)
    #: What may be added to its layers, for some of a batch.
    adapters: Adapters = field(default_factory=Adapters)

    @property
    def place(self) -> str:
        """`cuda:1`; of several devices `cuda:0-3` or, as of a CPU, `cpu×2`."""
        if self.team.size == 1:
            return str(self.device)
        last = self.team.size - 1
        return f"cuda:0-{last}" if self.device.type == "cuda" else f"cpu×{self.team.size}"

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


def load(config: EngineConfig, shard: Shard | None = None) -> LoadedModel:
    """Load the checkpoint that `config` names, or one rank's shard of it.

    Raises ModelLoadError with the reason, and SettingsError for a device or dtype that is none.
    """
    device = pick_device(config.device) if shard is None else shard.device
    dtype = _dtype(config.dtype)
    silence()
    check_folder(config.model)
    with _translated(config):
        options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
        shape = transformers.AutoConfig.from_pretrained(config.model, **options)
        check_weights(config.model)
        shared = {} if shard is None else shard.arguments(shape, config)
        model, report = _model_class(shape).from_pretrained(
            config.model,
            config=shape,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            **options,
            **shared,
        )
        _check_complete(config.model, report)
        parameters = model.num_parameters()
        if shard is not None:
            shard.settle(model)
        model = model.to(device).eval()
    tokenizer = load_tokenizer(config)
    folder = folder_of(config)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        device=device,
        revision=revision_of(config.model, folder),
        folder=folder,
        context_length=context_length(shape, tokenizer),
        end_ids=end_ids(model, tokenizer),
        parameters=parameters,
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


def hardware(device: torch.device, devices: int = 1) -> str:
    """What computes: a GPU's name, or a processor's kind and the instructions that torch uses."""
    if device.type == "cuda":
        name = str(torch.cuda.get_device_name(device))
        return name if devices == 1 else f"{devices} × {name}"
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


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
        raise ModelLoadError(
            f"model '{config.model}' can't be loaded: {one_line(error)}"
        ) from error
    except (*LOAD_ERRORS, SafetensorError, UnpicklingError) as error:
        raise ModelLoadError(why_not_loaded(config, error)) from error
