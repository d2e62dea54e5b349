"""Bringing up a model on several devices."""

from __future__ import annotations

from dataclasses import replace

import torch
import transformers

from db.errors import ModelLoadError, SettingsError
from worker.engine.options import tensor_parallel
from worker.engine.protocol import EngineConfig
from worker.engine.shared.metadata import LOAD_ERRORS, silence, why_not_loaded
from worker.engine.shared.weight_files import check_folder
from worker.engine.transformers.gguf import loading as gguf
from worker.engine.transformers.loading import LoadedModel, load
from worker.engine.transformers.parallel.plan import cut
from worker.engine.transformers.parallel.team import Team

#: Engine options that go together with `tensor_parallel`.
_BESIDE = frozenset({"tensor_parallel", "batching", "attention"})


def load_on_devices(config: EngineConfig, quantize: str = "none") -> LoadedModel:
    """The model that `config` names, on one device or, by tensor parallelism, on several.

    `quantize`: one of quantization.CHOICES, on one device alone.
    Raises ModelLoadError with the reason, and SettingsError for a setting that can't be had.
    """
    devices = devices_of(config)
    if len(devices) == 1:
        return load(config, quantize)
    silence()
    if gguf.find(config) is not None:
        raise ModelLoadError(
            f"model '{config.model}' is a GGUF file, which tensor_parallel does not take: leave "
            "that out, or name a checkpoint in safetensors"
        )
    check_folder(config.model)
    _check(config, len(devices))
    team = Team(config, devices)
    try:
        return team.unless_broken(lambda: _load(config, team))
    except BaseException:
        team.close()
        raise


def devices_of(config: EngineConfig) -> list[torch.device]:
    """The devices that share the model, ours first. Raises SettingsError."""
    wanted = tensor_parallel(config.options)
    kind, _, place = config.device.partition(":")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == 1 or (wanted is None and gpus < 2):
        return [torch.device("cpu")]  # one, which `load` picks
    _check_options(config)
    if place:
        raise SettingsError(
            f"device '{config.device}' is one device, and tensor_parallel wants more: "
            "use --device auto"
        )
    if kind == "cpu" and gpus:
        raise SettingsError(
            "device 'cpu': tensor_parallel takes the GPUs that PyTorch sees; hide them with "
            "CUDA_VISIBLE_DEVICES= to share a model between processes on the CPU"
        )
    size = wanted or gpus
    if kind == "cuda" and not gpus:
        raise SettingsError("device 'cuda' is not there: PyTorch sees no CUDA device")
    if not gpus:
        return [torch.device("cpu")] * size
    if size > gpus:
        raise SettingsError(
            f"engine option 'tensor_parallel': {size} devices are wanted, and PyTorch sees {gpus}"
        )
    return [torch.device("cuda", number) for number in range(size)]


def _check_options(config: EngineConfig) -> None:
    strange = sorted(set(config.options) - _BESIDE)
    if strange:
        raise SettingsError(
            f"engine option '{strange[0]}' doesn't go together with tensor_parallel: leave one out"
        )
    if config.adapters:
        raise SettingsError(
            f"adapter '{min(config.adapters)}': adapters don't go together with tensor_parallel; "
            "leave one out, or use the engine vllm"
        )
    if config.options.get("batching") == "static":
        raise SettingsError(
            "engine option 'batching': static doesn't go together with tensor_parallel, which "
            "batches continuously"
        )


def _check(config: EngineConfig, size: int) -> None:
    """Before any process is started: whether the model can be cut at all."""
    try:
        shape = transformers.AutoConfig.from_pretrained(
            config.model, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
        cut(shape, config, size)
    except ModelLoadError:
        raise
    except (*LOAD_ERRORS, RuntimeError) as error:
        raise ModelLoadError(why_not_loaded(config, error)) from error


def _load(config: EngineConfig, team: Team) -> LoadedModel:
    loaded = load(config, shard=team.gather())
    team.loaded()
    return replace(loaded, team=team)
