"""Starting vLLM on a checkpoint, and what it says of it.

vLLM reads environment variables when it is imported, so nothing else imports it.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.errors import ModelLoadError, ModelUnavailable, PromptmillError
from worker.engine.protocol import EngineConfig, EngineInfo
from worker.engine.shared.adapter_files import AdapterFiles, read_adapters
from worker.engine.shared.generation_rules import warn_not_followed
from worker.engine.shared.prompt import Prompter
from worker.engine.vllm_engine import adapters, settings

#: What vLLM reads from the environment; whoever has set one keeps it.
_ENVIRONMENT = {
    # It tells its makers of every start otherwise.
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    # Standard output may be somebody's results.
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    # Else logits that are no numbers make a text all the same.
    "VLLM_COMPUTE_NANS_IN_LOGITS": "1",
}

#: A prompt to try the loaded model on.
_TRIAL = "The quick brown fox"


@dataclass(frozen=True, slots=True)
class Plan:
    """A checkpoint that vLLM's configuration takes, not yet loaded."""

    config: EngineConfig
    #: vLLM's VllmConfig; vLLM itself writes into it, so each start makes a new one.
    make: Callable[[], Any]
    #: Tokens that the model takes, whatever the memory.
    context_length: int
    vocabulary: int
    prompter: Prompter
    #: Tokens that end a chat, besides those that vLLM has from the checkpoint.
    turn_ends: frozenset[int]
    #: Tokens to try the loaded model on.
    trial_ids: list[int]
    #: transformers' configuration of it.
    shape: Any
    #: What the installed vLLM is built for.
    there: str
    #: LoRA adapters that are to be loaded beside it.
    adapters: Sequence[AdapterFiles] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """What vLLM made of a plan."""

    info: EngineInfo
    #: Tokens that the KV cache holds of one sample.
    longest: int


@dataclass(frozen=True, slots=True)
class Running:
    """vLLM with a loaded model."""

    #: vLLM's AsyncLLM.
    llm: Any
    loaded: Loaded


def plan(config: EngineConfig, options: settings.Options) -> Plan:
    """Look at the checkpoint and the device; load nothing.

    Raises ModelLoadError, and SettingsError for a device or dtype that is none.
    """
    prepare()
    from transformers import AutoConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform

    from worker.engine.shared.metadata import load_tokenizer, pinned
    from worker.engine.shared.weight_files import check_folder, check_weights, refuse_gguf
    from worker.engine.transformers.memory import available_ram

    refuse_gguf("vllm", config.model)
    check_folder(config.model)
    there = str(current_platform.device_type)
    settings.device_ids(config.device, there, options.tensor_parallel)
    check_weights(config.model)
    config = pinned(config)
    files = read_adapters(config.adapters)
    extra = adapters.arguments(files, there)
    try:
        shape = AutoConfig.from_pretrained(
            config.model, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
        arguments = settings.arguments(
            config,
            options,
            there=there,
            free_memory=available_ram(),
            stored_dtype=_stored_dtype(shape),
        )

        def make() -> Any:
            return AsyncEngineArgs(**arguments, **extra).create_engine_config()

        model = make().model_config
    except PromptmillError:
        raise
    except Exception as error:
        raise ModelLoadError(_why(config, error)) from error
    # Not vLLM's own, which its loop uses while we encode on other threads.
    tokenizer = load_tokenizer(config)
    warn_not_followed("vllm", _generation_config(config))
    vocabulary = model.get_vocab_size()
    prompter = Prompter(tokenizer, readable=vocabulary)
    return Plan(
        config=config,
        make=make,
        context_length=model.max_model_len,
        vocabulary=vocabulary,
        prompter=prompter,
        turn_ends=frozenset(one for one in prompter.turn_ends if one < vocabulary),
        trial_ids=list(tokenizer(_TRIAL)["input_ids"]),
        shape=shape,
        there=there,
        adapters=files,
    )


def start(planned: Plan, on_step: Callable[[int], None]) -> Running:
    """Load the model in processes of vLLM's own; to be called on the loop that will use it.

    `on_step` is called after every step of vLLM's with the tokens that it made. Raises
    ModelLoadError with the reason.
    """
    from vllm.v1.engine.async_llm import AsyncLLM

    config = planned.config
    try:
        made = planned.make()
        llm = AsyncLLM.from_vllm_config(
            made, stat_loggers=[lambda *_: _beat(on_step)], disable_log_stats=True
        )
    except Exception as error:
        ended = "initialization failed" in str(error)
        kind = ModelUnavailable if ended else ModelLoadError
        raise kind(_why(config, error)) from error
    return Running(llm, Loaded(_info(planned, made), longest=made.model_config.max_model_len))


def prepare() -> None:
    """Set what vLLM reads from the environment."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # A fork would hold the worker's connections, and the pipe of its guard.
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    import transformers

    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def _beat(on_step: Callable[[int], None]) -> Any:
    """One of vLLM's loggers of statistics: it is called after every step."""
    from vllm.v1.metrics.loggers import StatLoggerBase

    class Beat(StatLoggerBase):
        def __init__(self) -> None:
            """It needs none of what vLLM would give."""

        def record(self, _scheduler: Any, iteration: Any, **_: Any) -> None:
            on_step(iteration.num_generation_tokens if iteration is not None else 0)

        def log_engine_initialized(self) -> None:
            """Nothing to say."""

    return Beat()


def _stored_dtype(shape: Any) -> str:
    """What the checkpoint says of its own numbers; `auto` where it says nothing."""
    dtype = getattr(shape.get_text_config(), "dtype", None) or getattr(shape, "dtype", None)
    return "auto" if dtype is None else str(dtype).removeprefix("torch.")


def _info(planned: Plan, made: Any) -> EngineInfo:
    from vllm import __version__

    from worker.engine.shared.metadata import folder_of, revision_of

    config = planned.config
    folder = folder_of(config)
    devices = made.parallel_config.tensor_parallel_size
    device = planned.there if config.device == "auto" else config.device
    longest = made.model_config.max_model_len
    return EngineInfo(
        engine="vllm",
        engine_version=__version__,
        model=config.model,
        revision=revision_of(config.model, folder),
        folder=folder,
        backend="vllm",
        device=device if devices == 1 else f"{device} x {devices}",
        dtype=str(made.model_config.dtype).removeprefix("torch."),
        parameters=_parameters(folder),
        capacity=made.scheduler_config.max_num_seqs,
        kv_tokens=made.cache_config.kv_cache_size_tokens,
        context_length=min(planned.context_length, longest),
        adapters={one.name: one.digest for one in planned.adapters},
    )


def _parameters(folder: Path | None) -> int:
    """Numbers in the checkpoint's tensors: only headers are read. 0 where it is not found."""
    from safetensors import safe_open

    if folder is None:
        return 0
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total


def _why(config: EngineConfig, error: Exception) -> str:
    from worker.engine.shared.metadata import why_not_loaded

    if "initialization failed" in str(error):
        return (
            f"model '{config.model}' can't be loaded: vLLM's process ended while it started; its "
            "own log, above, says why"
        )
    return why_not_loaded(config, error)


def _generation_config(config: EngineConfig) -> Any:
    """The checkpoint's own; None: it has none."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(config.model, revision=config.revision)
    except (OSError, ValueError, TypeError):
        return None
