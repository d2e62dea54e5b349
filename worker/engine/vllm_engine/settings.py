"""From EngineConfig and options to the arguments of vLLM's engine. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.errors import SettingsError
from worker.engine.options import OptionReader
from worker.engine.protocol import EngineConfig

#: Share of the free memory, and bytes, that the KV cache takes on a CPU when nobody says, as in
#: the engine `transformers`: vLLM itself would take nearly all.
CPU_FRACTION, CPU_CAP = 0.2, 1024**3

_GIB = 1024**3
_DTYPES = ("auto", "float32", "bfloat16", "float16")

#: vLLM's word for the longest context that fits its KV cache.
_AS_LONG_AS_FITS = -1

NAMES = (
    "cpu_offload",
    "enforce_eager",
    "kv_memory",
    "kv_offload",
    "max_model_len",
    "tensor_parallel",
)


@dataclass(frozen=True, slots=True)
class Options:
    """The engine's own settings."""

    #: Devices that share the model.
    tensor_parallel: int
    #: Tokens of prompt and text together; None: what the model takes and the KV cache holds.
    max_model_len: int | None
    #: None: on a CPU yes, else no.
    enforce_eager: bool | None
    #: Bytes of the KV cache; None: not said.
    kv_memory: int | None
    #: GiB of host memory for keys and values that the device has no room for.
    kv_offload: float
    #: GiB of weights, per device, that stay in host memory.
    cpu_offload: float

    @classmethod
    def read(cls, options: Mapping[str, str]) -> Options:
        """Raises SettingsError with every unknown or bad option."""
        reader = OptionReader("vllm", options, NAMES)
        eager = reader.choice("enforce_eager", ("auto", "on", "off"), "auto")
        length = reader.number("max_model_len", default=math.inf, at_least=1)
        memory = reader.number("kv_memory", default=math.inf, at_least=0.01)
        read = cls(
            tensor_parallel=int(reader.finite("tensor_parallel", default=1, at_least=1)),
            max_model_len=None if math.isinf(length) else int(length),
            enforce_eager=None if eager == "auto" else eager == "on",
            kv_memory=None if math.isinf(memory) else int(memory * _GIB),
            kv_offload=reader.number("kv_offload", default=0, at_least=0),
            cpu_offload=reader.number("cpu_offload", default=0, at_least=0),
        )
        reader.finish()
        return read


def device_ids(device: str, there: str, tensor_parallel: int) -> list[int] | None:
    """Numbers of the devices to use; None: vLLM's own choice.

    `there` is what the installed vLLM is built for: `cpu`, `cuda`, … Raises SettingsError for a
    device that it can't use.
    """
    kind, _, place = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (place and not (kind == "cuda" and place.isdigit())):
        raise SettingsError(f"device '{device}' is none of auto, cpu, cuda, cuda:N")
    if kind not in ("auto", there):
        raise SettingsError(
            f"device '{device}': the installed vLLM is built for {there}; use --device auto, or "
            f"install a vLLM for {kind}"
        )
    if not place:
        return None
    if tensor_parallel > 1:
        raise SettingsError(
            f"device '{device}' is one device, and tensor_parallel={tensor_parallel} wants more: "
            "use --device auto"
        )
    return [int(place)]


def arguments(
    config: EngineConfig, options: Options, *, there: str, free_memory: int, stored_dtype: str
) -> dict[str, Any]:
    """Arguments of vLLM's AsyncEngineArgs.

    `free_memory`: bytes of the host. `stored_dtype`: what the checkpoint is stored in, as vLLM's
    own `auto` would halve float32.
    """
    if config.dtype not in _DTYPES:
        raise SettingsError(f"dtype '{config.dtype}' is none of {', '.join(_DTYPES)}")
    on_cpu = there == "cpu"
    found: dict[str, Any] = {
        "model": config.model,
        "revision": config.revision,
        "tokenizer_revision": config.revision,
        "trust_remote_code": config.trust_remote_code,
        "dtype": stored_dtype if config.dtype == "auto" else config.dtype,
        # Pickled weights are never read.
        "load_format": "safetensors",
        "logprobs_mode": "raw_logprobs",
        "max_model_len": options.max_model_len or _AS_LONG_AS_FITS,
        "tensor_parallel_size": options.tensor_parallel,
        "device_ids": device_ids(config.device, there, options.tensor_parallel),
        "enforce_eager": on_cpu if options.enforce_eager is None else options.enforce_eager,
        "max_num_seqs": config.max_concurrency,
        "max_num_batched_tokens": config.max_batch_tokens,
        "kv_cache_memory_bytes": _kv_memory(config, options, free_memory if on_cpu else None),
        "kv_offloading_size": options.kv_offload or None,
        "cpu_offload_gb": options.cpu_offload,
        # The library that our own engines use, so that a structure means the same. White space
        # that JSON leaves open is left out: a model that likes it would never end.
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
        # The worker counts for itself.
        "disable_log_stats": True,
    }
    if config.kv_memory_fraction is not None and not on_cpu:
        found["gpu_memory_utilization"] = config.kv_memory_fraction
    return found


def _kv_memory(config: EngineConfig, options: Options, free: int | None) -> int | None:
    """Bytes of the KV cache; None: vLLM measures what is left of the device's share.

    `free`: bytes of host memory where the cache lies there.
    """
    if options.kv_memory is not None or free is None:
        return options.kv_memory
    if config.kv_memory_fraction is not None:
        return int(config.kv_memory_fraction * free)
    return min(int(CPU_FRACTION * free), CPU_CAP)
