"""What transformers leaves unread of a GGUF file: filled in, or refused by name.

It takes no notice of how a file stretches rotary positions, of scales that llama.cpp knows by
a model's size, and of tensors that its model has no place for. Each of them gives another text.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from db.errors import ModelLoadError
from db.gguf import Header, Tensor

#: Tensors that stretch rotary positions: divisors of the frequencies.
_ROPE_DIVISORS = "rope_freqs.weight"
_LONG_ROPE = ("rope_factors_long.weight", "rope_factors_short.weight")

#: Architectures whose stretched positions transformers' own configuration has.
_ROPE_KNOWN = ("gpt-oss", "gemma4")

#: Models whose queries are scaled by the width of a head, by number of layers; where that is this
#: one, by the width as it would be without a size of its own. As in llama.cpp: no file tells.
_QUERIES_BY_WIDTH = {"gemma2": 46, "gemma3": 62}

_F32 = 0
_LAYER = re.compile(r"blk\.(\d+)\.")


def fill_config(model: str, shape: Any, header: Header) -> None:
    """Write into transformers' configuration what it lacks.

    Raises ModelLoadError where it has no place for it.
    """
    text = shape.get_text_config()
    arch = header.architecture
    if arch == "gpt2":
        text.n_positions = header.metadata.get("gpt2.context_length", text.n_positions)
    if arch in _QUERIES_BY_WIDTH:
        own = text.num_hidden_layers != _QUERIES_BY_WIDTH[arch]
        width = text.head_dim if own else text.hidden_size // text.num_attention_heads
        text.query_pre_attn_scalar = width
    if arch in _ROPE_KNOWN:
        return
    names = {tensor.name for tensor in header.tensors}
    if names.intersection(_LONG_ROPE):
        raise _unread(model, "longrope")
    scaling = {
        key: header.metadata.get(f"{arch}.rope.scaling.{key}")
        for key in ("type", "factor", "original_context_length")
    }
    kind, factor = scaling["type"] or "linear", scaling["factor"]
    factor = factor or header.metadata.get(f"{arch}.rope.scale_linear")
    if kind == "none" or not isinstance(factor, float) or factor in (0.0, 1.0):
        return
    more: dict[str, Any] = {}
    if kind == "yarn":
        more["original_max_position_embeddings"] = scaling["original_context_length"]
    elif kind != "linear":
        raise _unread(model, str(kind)[:40])
    _stretch(model, text, {"rope_type": kind, "factor": factor, **more})


def check_all_read(model: str, loaded: Any, header: Header) -> None:
    """Raise ModelLoadError where the file has numbers that found no place in the model."""
    text = loaded.config.get_text_config()
    tied = bool(getattr(text, "tie_word_embeddings", False))
    there = sum(one.elements for one in header.tensors if _wanted(one.name, text, tied))
    read = {tensor.data_ptr(): tensor.numel() for tensor in loaded.state_dict().values()}
    if there > sum(read.values()):
        raise ModelLoadError(
            f"GGUF file '{model}' holds {there:,} numbers, of which transformers would leave "
            f"{there - sum(read.values()):,} out: use the model's safetensors"
        )


def scale_rope(model: str, loaded: Any, header: Header, file: Path) -> None:
    """Divide the rotary frequencies by what the file has for each, as in Llama 3.1."""
    found = [one for one in header.tensors if one.name == _ROPE_DIVISORS]
    if not found or header.architecture in _ROPE_KNOWN:
        return
    rotary = getattr(loaded.get_decoder(), "rotary_emb", None)
    own = getattr(rotary, "inv_freq", None)
    if own is None or own.numel() != found[0].elements or found[0].kind != _F32:
        raise _unread(model, "rope_freqs")
    divisors = _numbers(file, header, found[0])
    for name in ("inv_freq", "original_inv_freq"):
        if (frequencies := getattr(rotary, name, None)) is not None:
            frequencies.div_(divisors.to(frequencies.device))


def _numbers(file: Path, header: Header, tensor: Tensor) -> torch.Tensor:
    start = header.data_start + tensor.offset
    return torch.from_numpy(np.fromfile(file, np.float32, tensor.elements, offset=start))


def _stretch(model: str, text: Any, scaling: dict[str, Any]) -> None:
    own = getattr(text, "rope_parameters", None)
    if not isinstance(own, dict):
        raise _unread(model, str(scaling["rope_type"]))
    # Layers of a sliding window see near tokens only: theirs are not stretched.
    target = own.get("full_attention", own)
    target.update(scaling)


def _wanted(name: str, text: Any, tied: bool) -> bool:
    """Whether the model must have a place for the tensor."""
    if name.startswith("rope_") or (tied and name == "output.weight"):
        return False
    layer = _LAYER.match(name)
    # Layers behind the last one guess several tokens ahead; the model is whole without them.
    return layer is None or int(layer[1]) < getattr(text, "num_hidden_layers", math.inf)


def _unread(model: str, what: str) -> ModelLoadError:
    return ModelLoadError(
        f"GGUF file '{model}' stretches its positions ({what}) in a way that transformers does not "
        "read from a GGUF: use the model's safetensors"
    )
