"""Weights of fewer bits: those of a checkpoint that has them so, or made so while it is loaded."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
import transformers

from db.errors import ModelLoadError
from db.extras import install_command
from worker.engine.shared.metadata import one_line
from worker.engine.transformers.memory import is_out_of_memory

#: The words of the engine option `quantization`.
CHOICES = ("none", "bnb-4bit", "bnb-8bit")

#: A checkpoint's method -> the modules that it needs besides transformers, and what to install.
_NEEDS = {
    "aqlm": (("aqlm",), "pip install 'aqlm[gpu,cpu]'"),
    "auto-round": (("auto_round",), "pip install auto-round"),
    "awq": (("gptqmodel",), "pip install gptqmodel"),
    "bitsandbytes": (("bitsandbytes",), install_command("quantized")),
    "compressed-tensors": (("compressed_tensors",), "pip install compressed-tensors"),
    "gptq": (("optimum", "gptqmodel"), "pip install optimum gptqmodel"),
    "hqq": (("hqq",), "pip install hqq"),
    "quanto": (("optimum.quanto",), "pip install optimum-quanto"),
    "torchao": (("torchao",), "pip install torchao"),
    "vptq": (("vptq",), "pip install vptq"),
}

#: Methods whose names are too long to be recorded behind the dtype.
_SHORT = {"bitsandbytes": "bnb", "compressed-tensors": "compressed"}
_LONGEST = 10

#: bitsandbytes' fused kernel for processors takes outputs in blocks of so many.
_FUSED_BLOCK = 32


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a model's weights are packed."""

    #: What is recorded behind the dtype: the option's word, or the checkpoint's method.
    name: str
    #: For `from_pretrained`; None: the checkpoint has its own.
    config: Any = None


def plan(model: str, shape: Any, wanted: str, dtype: torch.dtype | str) -> Quantization | None:
    """What to load the checkpoint with; None: as it is, and it is plain.

    `shape` is transformers' configuration of it, `wanted` one of CHOICES, `dtype` what is computed
    in, or `auto`. Raises ModelLoadError for what can't be loaded here.
    """
    # It tells in the log of every cast to the type that it computes in.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    stored = stored_method(shape)
    if stored is not None:
        _check_stored(model, stored, wanted)
        return Quantization(_SHORT.get(stored, stored)[:_LONGEST])
    if wanted == "none":
        return None
    if find_spec("bitsandbytes") is None:
        raise ModelLoadError(
            f"the engine option quantization={wanted} needs the package 'bitsandbytes', which is "
            f"not installed: {install_command('quantized')}"
        )
    return Quantization(wanted, _bitsandbytes(wanted, _computed_in(shape, dtype)))


def stored_method(shape: Any) -> str | None:
    """How the checkpoint itself is quantised, by transformers' name; None: it is not."""
    found = getattr(shape, "quantization_config", None)
    found = found or getattr(shape.get_text_config(), "quantization_config", None)
    if found is None:
        return None
    told = found if isinstance(found, dict) else found.to_dict()
    if told.get("load_in_4bit") or told.get("load_in_8bit"):
        return "bitsandbytes"
    method = told.get("quant_method") or "unknown"
    return str(getattr(method, "value", method))


def parameters(kind: Any, loaded: Any) -> int:
    """Parameters of the model as it would be unpacked."""
    plain = copy.deepcopy(loaded.config)
    for owner in (plain, plain.get_text_config()):
        if hasattr(owner, "quantization_config"):
            del owner.quantization_config
    with torch.device("meta"):
        return int(kind.from_config(plain).num_parameters())


def choose_kernels(model: Any) -> None:
    """Layers of 4 bits by bitsandbytes' fused kernel for processors only where that is right.

    On a processor with AVX-512 BF16, bitsandbytes packs every layer anew for a kernel that computes
    in bfloat16, whatever was asked for, and fails for widths that are no multiple of its block.
    """
    for layer in model.modules():
        if getattr(layer, "support_avx512bf16_for_cpu", False):
            layer.support_avx512bf16_for_cpu = (
                layer.compute_dtype == torch.bfloat16
                and layer.out_features % _FUSED_BLOCK == 0
                and layer.in_features % layer.weight.blocksize == 0
            )


def check_runs(name: str, loaded: Any, packed: Quantization) -> None:
    """Two tokens on trial: some models reach into weights themselves, past what unpacks them.

    Raises ModelLoadError where it fails for another reason than memory.
    """
    ids = torch.tensor([[1, 2, 1]], device=loaded.device)
    try:
        with torch.inference_mode():
            loaded.generate(input_ids=ids, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelLoadError(
            f"model '{name}' does not run with its weights packed ({packed.name}): "
            f"{one_line(error)}; load a plain checkpoint of it without the option quantization"
        ) from error


def _check_stored(model: str, method: str, wanted: str) -> None:
    if wanted != "none":
        raise ModelLoadError(
            f"model '{model}' is quantised already ({method}): leave out the engine option "
            f"quantization={wanted}"
        )
    modules, install = _NEEDS.get(method, ((), ""))
    missing = [name for name in modules if not _is_there(name)]
    if missing:
        raise ModelLoadError(
            f"model '{model}' is quantised with {method}, which needs {' and '.join(missing)}: "
            f"{install}"
        )
    known = transformers.quantizers.auto.AUTO_QUANTIZATION_CONFIG_MAPPING
    if method not in known and method != "bitsandbytes":
        raise ModelLoadError(
            f"model '{model}' is quantised with '{method[:40]}', which this transformers does not "
            f"know: it knows bitsandbytes, {', '.join(sorted(known))}"
        )


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False


def _computed_in(shape: Any, dtype: torch.dtype | str) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    named = getattr(shape.get_text_config(), "dtype", None) or getattr(shape, "dtype", None)
    return named if isinstance(named, torch.dtype) else torch.bfloat16


def _bitsandbytes(wanted: str, dtype: torch.dtype) -> Any:
    if wanted == "bnb-8bit":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
