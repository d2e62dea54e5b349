"""Loading a checkpoint: device, dtype, weights, tokenizer and revision.

Everything that transformers, torch or the hub raise on the way leaves here as ModelLoadError:
one line that says what was wrong and what to do.
"""

from __future__ import annotations

import contextlib
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from db.errors import ModelLoadError, ModelUnavailable, SettingsError
from worker.engine.protocol import EngineConfig
from worker.engine.shared.metadata import (
    LOAD_ERRORS,
    context_length,
    end_ids,
    folder_of,
    load_tokenizer,
    one_line,
    pinned,
    revision_of,
    silence,
    why_not_loaded,
)
from worker.engine.shared.weight_files import check_folder, check_weights
from worker.engine.transformers import quantization
from worker.engine.transformers.adapters.lora import Adapters
from worker.engine.transformers.gguf import loading as gguf
from worker.engine.transformers.memory import is_out_of_memory
from worker.engine.transformers.parallel.plan import Shard
from worker.engine.transformers.parallel.team import Alone
from worker.engine.transformers.turns import Turns

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


#: What readers of a GGUF file raise for one that says nonsense.
_BROKEN = (struct.error, ArithmeticError, AssertionError)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in evaluation mode on its device, with its tokenizer."""

    model: Any
    tokenizer: Any
    device: torch.device
    revision: str | None
    #: Where its files lie, or its one GGUF file; None where the hub's cache does not tell.
    folder: Path | None
    #: Tokens of prompt and text together; None: no limit. Of an encoder-decoder: of the prompt.
    context_length: int | None
    #: Ids that end a text.
    end_ids: frozenset[int]
    #: Of the whole model, whatever of it is on this device; of packed weights as if unpacked.
    parameters: int
    #: How its weights are packed, by the name that is recorded; None: they are plain.
    quantization: str | None = None
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
        """What is computed in, and how the weights are packed if they are: `bfloat16, bnb-4bit`."""
        dtype = str(self.model.dtype).removeprefix("torch.")
        return dtype if self.quantization is None else f"{dtype}, {self.quantization}"

    @property
    def readable(self) -> int:
        """Tokens that the model reads: the rows of its embedding, the whole one's of a shard."""
        if self.team.size > 1:
            return int(self.model.config.get_text_config().vocab_size)
        embedding = self.model.get_input_embeddings()
        return int(getattr(embedding, "num_embeddings", None) or embedding.weight.shape[0])

    @property
    def vocabulary(self) -> int:
        """Tokens that the model gives logits of."""
        head = self.model.get_output_embeddings()
        return int(getattr(head, "out_features", None) or head.weight.shape[0])


def load(config: EngineConfig, quantize: str = "none", shard: Shard | None = None) -> LoadedModel:
    """Load the checkpoint that `config` names, or one rank's shard of it.

    `quantize`: one of quantization.CHOICES, which a shard has not.

    Raises ModelLoadError with the reason, and SettingsError for a device or dtype that is none.
    """
    device = pick_device(config.device) if shard is None else shard.device
    dtype = _dtype(config.dtype)
    silence()
    with _translated(config):
        file = gguf.find(config)
        if file is not None:
            return _load_gguf(config, file, device, dtype, quantize)
    check_folder(config.model)
    return _load_checkpoint(pinned(config), device, dtype, quantize, shard)


def _load_checkpoint(
    config: EngineConfig,
    device: torch.device,
    dtype: torch.dtype | str,
    quantize: str,
    shard: Shard | None,
) -> LoadedModel:
    with _translated(config):
        options: dict[str, Any] = {
            "revision": config.revision,
            "trust_remote_code": config.trust_remote_code,
        }
        shape = transformers.AutoConfig.from_pretrained(config.model, **options)
        check_weights(config.model)
        packed = quantization.plan(config.model, shape, quantize, dtype)
        if packed is not None:  # where it is packed, it stays
            options["device_map"] = {"": _place(device)}
            options["quantization_config"] = packed.config
        if shard is not None:
            options |= shard.arguments(shape, config)
        kind = _model_class(shape)
        model, report = kind.from_pretrained(
            config.model,
            config=shape,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
        _check_complete(
            config.model, report, "its config.json and its safetensors files do not belong together"
        )
        parameters = model.num_parameters()
        if shard is not None:
            shard.settle(model)
        if packed is None:
            model = model.to(device)
        else:
            parameters = quantization.parameters(kind, model)
            quantization.choose_kernels(model)
            quantization.check_runs(config.model, model, packed)
        model = model.eval()
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
        quantization=None if packed is None else packed.name,
    )


def _load_gguf(
    config: EngineConfig, file: Path, device: torch.device, dtype: torch.dtype | str, quantize: str
) -> LoadedModel:
    if quantize != "none":
        raise ModelLoadError(
            f"model '{config.model}' is a GGUF file, whose weights are unpacked when they are "
            f"read: leave out the engine option quantization={quantize}"
        )
    header = gguf.judged(config.model, file)
    model, report, tokenizer = gguf.load(config.model, file, header, dtype)
    _check_complete(config.model, report, "the GGUF file is not all of a model: get another one")
    return LoadedModel(
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        device=device,
        revision=gguf.revision(config.model, file, header),
        folder=file,
        context_length=context_length(model.config, tokenizer),
        end_ids=end_ids(model, tokenizer) | gguf.end_ids(header, tokenizer),
        parameters=model.num_parameters(),
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


def _place(device: torch.device) -> str:
    """The device by its number: `cuda` alone means another one to some libraries."""
    return f"cuda:{torch.cuda.current_device()}" if str(device) == "cuda" else str(device)


def _check_complete(model: str, report: dict[str, Any], why: str) -> None:
    """transformers fills weights that are missing with random numbers, and only warns."""
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelLoadError(
            f"model '{model}' lacks {len(missing)} of its weights ({missing[0]}, …): {why}"
        )


@contextlib.contextmanager
def _translated(config: EngineConfig) -> Iterator[None]:
    try:
        yield
    except ModelLoadError:
        raise
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise ModelUnavailable(
                f"model '{config.model}' does not fit in the memory of device '{config.device}': "
                "use a smaller model, dtype bfloat16 or a larger device"
            ) from error
        if any(f"not implemented for '{kind}'" in str(error) for kind in ("Byte", "Char")):
            # transformers would make random numbers of what is missing, and can't of packed ones.
            raise ModelLoadError(
                f"model '{config.model}' lacks some of its packed weights: download it again"
            ) from error
        raise ModelUnavailable(
            f"model '{config.model}' can't be loaded: {one_line(error)}"
        ) from error
    except (*LOAD_ERRORS, SafetensorError, UnpicklingError, *_BROKEN) as error:
        raise ModelLoadError(why_not_loaded(config, error)) from error
