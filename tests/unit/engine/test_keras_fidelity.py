"""What KerasHub would convert wrongly without a word is refused before it is loaded."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Gemma3TextConfig, GPT2Config, LlamaConfig

from db.errors import ModelLoadError
from worker.engine.kerashub.fidelity import check_config, check_parameters

PATTERN = [*["sliding_attention"] * 5, "full_attention"]


def gpt2(**values: Any) -> dict[str, Any]:
    config: dict[str, Any] = GPT2Config(**values).to_dict()
    return config


def gemma3(**values: Any) -> dict[str, Any]:
    config: dict[str, Any] = Gemma3TextConfig(**values).to_dict()
    return config


@pytest.mark.parametrize(
    "config",
    [
        gpt2(),
        gpt2(n_layer=3, n_embd=96),
        gemma3(),
        gemma3(num_hidden_layers=8, layer_types=[*PATTERN, *PATTERN[:2]]),
        gemma3(num_hidden_layers=2, layer_types=["full_attention"] * 2),
    ],
    ids=lambda config: config["model_type"],
)
def test_given_a_checkpoint_as_published_when_checked_then_it_passes(
    config: dict[str, Any],
) -> None:
    check_config("m", config, insist=False)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (gpt2(activation_function="relu"), "activation_function \\(relu\\)"),
        (gpt2(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx"),
        (gpt2(layer_norm_epsilon=1e-6), "layer_norm_epsilon"),
        (gemma3(tie_word_embeddings=False), "tie_word_embeddings"),
        (gemma3(layer_types=PATTERN[::-1], num_hidden_layers=6), "layer_types"),
        (gemma3(query_pre_attn_scalar=7), "query_pre_attn_scalar \\(7\\)"),
        (gemma3(use_bidirectional_attention=True), "use_bidirectional_attention"),
        (
            gemma3(
                num_hidden_layers=6,
                layer_types=PATTERN,
                rope_parameters={
                    "sliding_attention": {"rope_theta": 5e4, "rope_type": "default"},
                    "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
                },
            ),
            "rope_theta of sliding_attention",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_given_a_checkpoint_that_departs_when_checked_then_the_field_is_named(
    config: dict[str, Any], named: str
) -> None:
    with pytest.raises(ModelLoadError, match=named):
        check_config("m", config, insist=False)
    with pytest.raises(ModelLoadError, match=named):
        check_config("m", config, insist=True)


def test_given_a_type_that_nobody_compared_when_checked_then_only_insisting_loads_it() -> None:
    llama = LlamaConfig().to_dict()
    with pytest.raises(ModelLoadError, match=r"of type 'llama'.*gemma3_text, gpt2 only.*'any'"):
        check_config("m", llama, insist=False)
    check_config("m", llama, insist=True)


TENSORS = {
    "transformer.h.0.attn.bias": [1, 1, 8, 8],
    "transformer.h.0.attn.c_attn.bias": [6],
    "transformer.wte.weight": [5, 2],
    "lm_head.weight": [5, 2],
}


@pytest.mark.parametrize(("tied", "parameters"), [(True, 16), (False, 26)])
def test_given_all_tensors_when_counted_then_masks_and_copies_are_not(
    tied: bool, parameters: int
) -> None:
    check_parameters("m", TENSORS, tied, parameters)
    with pytest.raises(ModelLoadError, match=f"has {parameters} parameters, KerasHub made 15"):
        check_parameters("m", TENSORS, tied, 15)
