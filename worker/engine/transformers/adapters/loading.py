"""Adapters from their folders to the layers of a loaded model, tried before the first request.

A weight that finds no place, a place that does not fit and a layer that is never called are
errors: an adapter that is left out in part gives wrong texts, and nobody notices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from db.errors import ModelLoadError
from worker.engine.shared.adapter_files import WEIGHTS, AdapterFiles, bad_adapter, read_adapters
from worker.engine.shared.metadata import one_line
from worker.engine.transformers.adapters.lora import Adapters, Addition
from worker.engine.transformers.loading import LoadedModel

#: As PEFT names the two matrices of a layer.
_MATRIX = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")

#: Parts of names of weights, and what they are for: nothing that is computed here.
_OTHERS = {
    "lora_magnitude_vector": "DoRA",
    "lora_embedding_": "an embedding",
    "embed_tokens": "an embedding",
    "modules_to_save": "a whole module",
    "lora_B.bias": "a bias",
}

_TEXT = "The quick brown fox jumps over the lazy dog"


def with_adapters(loaded: LoadedModel, adapters: Mapping[str, str]) -> LoadedModel:
    """The model with these beside it, by name and folder or hub id. Raises ModelLoadError."""
    if not adapters:
        return loaded
    files = read_adapters(adapters)
    additions: dict[Any, list[Addition]] = {}
    layers = dict(loaded.model.named_modules())
    for number, one in enumerate(files):
        for path, (down, up) in _matrices(one).items():
            module = _layer(one, loaded, layers, path)
            addition = _addition(one, number, path, (down, up), module, loaded.model)
            additions.setdefault(module, []).append(addition)
    with_them = replace(
        loaded, adapters=Adapters.attach({one.name: one.digest for one in files}, additions)
    )
    for one in files:
        touched = [module for module, parts in additions.items() if _has(parts, one, files)]
        _try(with_them, one.name, touched)
    return with_them


def _has(parts: Sequence[Addition], one: AdapterFiles, files: Sequence[AdapterFiles]) -> bool:
    return any(files[part.adapter] is one for part in parts)


def _matrices(files: AdapterFiles) -> dict[str, tuple[Tensor, Tensor]]:
    """By the path of its layer, A and B."""
    try:
        stored = load_file(files.folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise bad_adapter(
            files.name, f"has an {WEIGHTS} that can't be read: {one_line(error)}"
        ) from (error)
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in stored.items():
        found = _MATRIX.fullmatch(name)
        if found is None:
            what = next((what for part, what in _OTHERS.items() if part in name), "no LoRA layer's")
            raise bad_adapter(
                files.name, f"holds '{name}' ({what}), which can't be used: only plain LoRA can"
            )
        if not bool(tensor.isfinite().all()):
            raise bad_adapter(files.name, f"holds NaN or infinity in '{name}': train it anew")
        sides.setdefault(found["layer"], {})[found["side"]] = tensor
    if not sides:
        raise bad_adapter(files.name, f"has an empty {WEIGHTS}")
    for layer, both in sides.items():
        if len(both) < 2:
            raise bad_adapter(files.name, f"lacks one of the two matrices of layer '{layer}'")
    return {layer: (both["A"], both["B"]) for layer, both in sides.items()}


def _layer(files: AdapterFiles, loaded: LoadedModel, layers: Mapping[str, Any], path: str) -> Any:
    """The model's layer of that path, if it is of a kind that an adapter can add to."""
    module = layers.get(path)
    if module is None:
        raise bad_adapter(files.name, f"is for a layer '{path}', {_not_here(files, loaded)}")
    if module is loaded.model.get_output_embeddings():
        raise bad_adapter(
            files.name, f"is for the output layer '{path}', which can't be used: leave it out"
        )
    if _sizes(module) is None or ".experts." in path:
        raise bad_adapter(
            files.name,
            f"is for '{path}', a {type(module).__name__}, which can't be used: only linear layers "
            "that see every token can",
        )
    return module


def _not_here(files: AdapterFiles, loaded: LoadedModel) -> str:
    trained = f": it was trained on '{files.base}'" if files.base else ""
    return f"which model '{loaded.model.config.name_or_path}' does not have{trained}"


def _sizes(module: Any) -> tuple[int, int] | None:
    """What goes in and what comes out; None: it is no linear layer."""
    if isinstance(module, Conv1D):
        return module.weight.shape[0], module.weight.shape[1]
    wide, high = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return (wide, high) if isinstance(wide, int) and isinstance(high, int) else None


def _addition(
    files: AdapterFiles,
    number: int,
    path: str,
    matrices: tuple[Tensor, Tensor],
    module: Any,
    model: Any,
) -> Addition:
    down, up = matrices
    rank, sizes = files.rank_of(path), _sizes(module)
    if sizes is None or down.shape != (rank, sizes[0]) or up.shape != (sizes[1], rank):
        raise bad_adapter(
            files.name,
            f"has matrices {tuple(down.shape)} and {tuple(up.shape)} for layer '{path}', which "
            f"has {sizes} and rank {rank}: it was made for another model",
        )
    scaled = up.float() * files.scale_of(path)
    device = next(module.parameters()).device
    here = {"device": device, "dtype": model.dtype}
    addition = Addition(number, down.to(**here), scaled.to(**here))
    if not all(bool(part.isfinite().all()) for part in (addition.down, addition.up)):
        raise bad_adapter(
            files.name, f"overflows {model.dtype} in layer '{path}': load the model in bfloat16"
        )
    return addition


def _try(loaded: LoadedModel, name: str, touched: Sequence[Any]) -> None:
    """A few tokens with the adapter: they come through all of its layers, as numbers."""
    ids = torch.tensor([list(loaded.tokenizer(_TEXT)["input_ids"])[:12]], device=loaded.device)
    called: set[Any] = set()
    finite = True

    def look(module: Any, _: Any, output: torch.Tensor) -> None:
        nonlocal finite
        called.add(module)
        finite = finite and bool(output.isfinite().all())

    watches = [module.register_forward_hook(look) for module in touched]
    inputs: dict[str, Any] = {"input_ids": ids}
    if loaded.encoder_decoder:
        inputs["decoder_input_ids"] = ids.new_full((1, 1), loaded.decoder_start_id or 0)
    try:
        with loaded.adapters.rows([name]), torch.inference_mode():
            if not loaded.encoder_decoder:  # every layer must see every token
                loaded.adapters.use_packed([(name, ids.shape[1])], ids.shape[1])
            logits = loaded.model(**inputs, use_cache=False).logits
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise bad_adapter(name, f"does not run with this model: {one_line(error)}") from error
    finally:
        for watch in watches:
            watch.remove()
    unused = [module for module in touched if module not in called]
    if unused:
        paths = {module: path for path, module in loaded.model.named_modules()}
        raise bad_adapter(
            name, f"is for layer '{paths[unused[0]]}', which this model computes without calling it"
        )
    # Of its layers too: some attention kernels make numbers of what is none.
    if not (finite and bool(logits.isfinite().all())):
        raise ModelLoadError(
            f"adapter '{name}' makes numbers of the model not finite (NaN or infinite): load the "
            "model in float32 or bfloat16, or train the adapter anew"
        )
