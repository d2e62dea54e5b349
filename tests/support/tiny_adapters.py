"""LoRA adapters of a tiny checkpoint, written by PEFT: strong enough that every text changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.tiny_models import Kind

#: Layers of attention alone, and with those of the rest, by kind of model.
ATTENTION: dict[str, list[str]] = {
    "gpt2": ["c_attn"],
    "llama": ["q_proj", "v_proj"],
    "gemma3": ["q_proj", "v_proj"],
    "mamba": ["in_proj"],
    "t5": ["q", "v"],
}
REST: dict[str, list[str]] = {
    "gpt2": ["c_proj", "c_fc"],
    "llama": ["k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "gemma3": ["k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "mamba": ["x_proj"],
    "t5": ["k", "o", "wi", "wo"],
}


def build_adapters(kind: Kind, checkpoint: Path, folder: Path) -> dict[str, str]:
    """Two of them by name: `fin` on attention alone; `law` on all layers, of other ranks, some by a
    pattern, scaled by the root of the rank."""
    fin = build_adapter(
        checkpoint, folder / "fin", r=4, lora_alpha=8, target_modules=ATTENTION[kind]
    )
    first = ATTENTION[kind][0]
    law = build_adapter(
        checkpoint,
        folder / "law",
        seed=2,
        r=7,
        lora_alpha=5,
        use_rslora=True,
        target_modules=[*ATTENTION[kind], *REST[kind]],
        rank_pattern={first: 3, rf".*\.1\..*\.{REST[kind][0]}": 2},
        alpha_pattern={REST[kind][0]: 9},
    )
    return {"fin": str(fin), "law": str(law)}


def build_adapter(checkpoint: Path, folder: Path, *, seed: int = 1, **config: Any) -> Path:
    """Write an adapter with random matrices into `folder` and return it.

    `config` is LoraConfig's.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(plain(checkpoint), LoraConfig(**config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name or ".lora_A." in name:
                weight.normal_(std=0.2, generator=generator)
    model.save_pretrained(str(folder))
    return folder


def plain(checkpoint: Path) -> Any:
    """transformers' own model of the checkpoint, in float32."""
    import torch
    import transformers

    shape = transformers.AutoConfig.from_pretrained(checkpoint)
    loader = (
        transformers.AutoModelForSeq2SeqLM
        if shape.is_encoder_decoder
        else transformers.AutoModelForCausalLM
    )
    return loader.from_pretrained(checkpoint, dtype=torch.float32).eval()


def merged(checkpoint: Path, adapter: str, folder: Path) -> Path:
    """The checkpoint with the adapter added to its weights, by PEFT, with the tokenizer."""
    import transformers
    from peft import PeftModel

    PeftModel.from_pretrained(plain(checkpoint), adapter).merge_and_unload().save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
    return folder
