"""GGUF files made of tiny checkpoints, as llama.cpp's converter writes them.

Real tensor names, real layouts: what a reader must undo (norms stored as `w + 1`, queries and
keys permuted, GPT-2's weights turned) is done here, so that equal text means a right reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

Arch = Literal["gpt2", "gemma3", "llama", "qwen2"]
Weights = Literal["F32", "F16", "Q8_0"]

#: Chats of the tiny `qwen2`, which ends a turn with a token that is not its end of text.
TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_llm(arch: Literal["llama", "qwen2"], folder: Path, **more: Any) -> Path:
    """A tiny checkpoint of that architecture; `more` goes into its configuration."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    from tests.support.tiny_models import CONTEXT_LENGTH, byte_level_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    ends = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    tokenizer = byte_level_tokenizer(ends, ("<|im_start|>", "<|im_end|>"))
    tokenizer.chat_template = TURNS
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": CONTEXT_LENGTH,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    torch.manual_seed(20)
    if arch == "llama":
        model: Any = LlamaForCausalLM(LlamaConfig(**{**shape, **more}))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**{**shape, **more}))
        with torch.no_grad():  # biases begin at zero, where leaving them out is no matter
            for name, weight in model.named_parameters():
                if name.endswith(".bias"):
                    weight.normal_(std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_gguf(
    checkpoint: Path,
    file: Path,
    weights: Weights = "F32",
    *,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray[Any, Any]] | None = None,
    leave_out: str | None = None,
    arch: str | None = None,
) -> Path:
    """Write a checkpoint of tests/support/ as one GGUF file and return it.

    `metadata` and `tensors` are added to it, under their full names; `leave_out` is a tensor's
    name; `arch` is what the file calls its architecture.
    """
    import gguf
    from safetensors.numpy import load_file
    from transformers import AutoConfig, AutoTokenizer

    shape = AutoConfig.from_pretrained(checkpoint)
    own: Any = {"gemma3_text": "gemma3"}.get(shape.model_type, shape.model_type)
    writer = gguf.GGUFWriter(file, arch or own)
    _write_shape(writer, own, shape)
    _write_tokenizer(writer, AutoTokenizer.from_pretrained(checkpoint))
    for key, value in (metadata or {}).items():
        _add(writer, key, value)
    kind = gguf.GGMLQuantizationType[weights]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[own.upper()], 8)
    stored = load_file(checkpoint / "model.safetensors")
    for name, tensor in stored.items():
        stem, dot, suffix = name.rpartition(".")
        renamed = f"{names.get_name(stem)}{dot}{suffix}"
        if renamed != leave_out:
            _write_tensor(writer, renamed, _as_stored(own, shape, renamed, tensor), kind)
    for name, tensor in (tensors or {}).items():
        _write_tensor(writer, name, tensor, gguf.GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _write_shape(writer: Any, arch: Arch, shape: Any) -> None:
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_head_count(shape.num_attention_heads)
    if arch == "gpt2":
        writer.add_feed_forward_length(4 * shape.hidden_size)
        writer.add_layer_norm_eps(shape.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    if arch == "gemma3":
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)
        writer.add_sliding_window(shape.sliding_window)
        writer.add_rope_freq_base(shape.rope_parameters["full_attention"]["rope_theta"])
    else:
        writer.add_rope_dimension_count(shape.hidden_size // shape.num_attention_heads)
        writer.add_rope_freq_base(shape.rope_parameters["rope_theta"])


def _write_tokenizer(writer: Any, tokenizer: Any) -> None:
    import json

    import gguf

    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    special = set(tokenizer.all_special_ids)
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([control if at in special else normal for at in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _add(writer: Any, key: str, value: Any) -> None:
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    add.get(type(value), writer.add_string)(key, value)


def _as_stored(arch: Arch, shape: Any, name: str, tensor: Any) -> Any:
    if arch == "gpt2" and tensor.ndim == 2 and name.startswith("blk."):
        return np.ascontiguousarray(tensor.T)
    if arch == "gemma3" and name.endswith("norm.weight"):
        return tensor + 1
    if arch == "llama" and ("attn_q." in name or "attn_k." in name):
        heads = shape.num_attention_heads if "attn_q." in name else shape.num_key_value_heads
        halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(tensor.shape))
    return tensor


def _write_tensor(writer: Any, name: str, tensor: Any, kind: Any) -> None:
    """Vectors stay float32, as in every real file."""
    import gguf

    tensor = tensor.astype(np.float32)
    if tensor.ndim < 2 or kind == gguf.GGMLQuantizationType.F32:
        writer.add_tensor(name, tensor)
    elif kind == gguf.GGMLQuantizationType.F16:
        writer.add_tensor(name, tensor.astype(np.float16))
    else:
        writer.add_tensor(name, gguf.quantize(tensor, kind), raw_dtype=kind)
