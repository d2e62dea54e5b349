"""What KerasHub would silently get wrong about a checkpoint.

Its converters read the fields of a config.json that they know and ignore the others, so a
checkpoint that differs in one of these would load and write nonsense. Model types whose fields
are compared here give PyTorch's very tokens (tests/parity/test_keras.py); no other is loaded
unless the user insists.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from db.errors import ModelLoadError

#: Field -> the values that KerasHub takes for granted.
_GPT2 = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "tie_word_embeddings": (True,),
    "add_cross_attention": (False,),
}
_GEMMA3 = {
    "hidden_activation": ("gelu_pytorch_tanh",),
    "attention_bias": (False,),
    "tie_word_embeddings": (True,),
    "use_bidirectional_attention": (False, None),
}

#: Of every so many layers of Gemma 3, the last one has full attention.
_PATTERN = 6
_THETA = {"sliding_attention": 1e4, "full_attention": 1e6}

#: Tensors of checkpoints that are no weights: masks and frequencies that transformers once saved.
_NO_WEIGHT = re.compile(r"(\.attn\.(masked_)?bias|\.inv_freq)$")


def check_config(model: str, config: Mapping[str, Any], *, insist: bool) -> None:
    """Raise ModelLoadError where KerasHub's model would not be the checkpoint's.

    `config` is the text model's, as transformers completes it; `insist` lets model types pass
    that nobody has compared.
    """
    kind = str(config.get("model_type"))
    check = _CHECKS.get(kind)
    if check is None:
        if insist:
            return
        raise ModelLoadError(
            f"model '{model}' is of type '{kind}': engine 'keras' is compared with PyTorch on "
            f"{', '.join(sorted(_CHECKS))} only; use the engine 'transformers', or the engine "
            "option 'models': 'any' for what KerasHub makes of it"
        )
    reason = check(config)
    if reason is not None:
        raise ModelLoadError(
            f"model '{model}': KerasHub would get its {reason} wrong: use the engine 'transformers'"
        )


def check_parameters(
    model: str, tensors: Mapping[str, Sequence[int]], tied: bool, loaded: int
) -> None:
    """Raise ModelLoadError unless the model has as many parameters as the checkpoint's tensors.

    `tensors`: shapes by name; `tied`: the output is the embedding, also where it is stored twice.
    """
    stored = sum(
        math.prod(shape)
        for name, shape in tensors.items()
        if not _NO_WEIGHT.search(name) and not (tied and name == "lm_head.weight")
    )
    if stored != loaded:
        raise ModelLoadError(
            f"model '{model}' has {stored:,} parameters, KerasHub made {loaded:,} of them: "
            "use the engine 'transformers'"
        )


def _first_departure(config: Mapping[str, Any], granted: Mapping[str, Sequence[Any]]) -> str | None:
    for name, values in granted.items():
        if name in config and config[name] not in values:
            return f"{name} ({config[name]})"
    return None


def _gpt2(config: Mapping[str, Any]) -> str | None:
    return _first_departure(config, _GPT2)


def _gemma3(config: Mapping[str, Any]) -> str | None:
    departure = _first_departure(config, _GEMMA3)
    if departure is not None:
        return departure
    kinds = list(config["layer_types"])
    if "sliding_attention" in kinds:
        places = range(1, len(kinds) + 1)
        pattern = ["sliding_attention" if at % _PATTERN else "full_attention" for at in places]
    else:
        pattern = ["full_attention"] * len(kinds)
    if kinds != pattern:
        return "layer_types (not five sliding ones and a full one in turn)"
    scalar = config["query_pre_attn_scalar"]
    if scalar not in (
        config["head_dim"],
        config["hidden_size"] // config["num_attention_heads"],
    ):
        return f"query_pre_attn_scalar ({scalar})"
    return _rope(config["rope_parameters"], set(kinds))


def _rope(parameters: Mapping[str, Any], kinds: set[str]) -> str | None:
    for kind in sorted(kinds):
        rope = parameters[kind]
        if rope["rope_theta"] != _THETA[kind]:
            return f"rope_theta of {kind} ({rope['rope_theta']:g})"
        if rope.get("rope_type", "default") not in ("default", "linear"):
            return f"rope_type of {kind} ({rope['rope_type']})"
    return None


_CHECKS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "gpt2": _gpt2,
    "gemma3_text": _gemma3,
}
