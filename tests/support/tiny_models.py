"""Checkpoints of a few hundred kilobytes, made on the spot: no hub, no download.

    python -m tests.support.tiny_models gpt2 FOLDER

The weights are random, wide enough that greedy text is varied and that no two tokens are ever
nearly tied; the tokenizer is a byte-level BPE trained here, so any text round-trips. The same
kind is the same checkpoint every time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

Kind = Literal[
    "gpt2",
    "llama",
    "llama-biased",
    "gemma3",
    "gemma3-tied",
    "mamba",
    "t5",
    "bart",
    "gpt2-wide",
    "gemma3-wide",
]

#: Tokens of prompt and text together that the tiny models take, where their shape has a limit.
CONTEXT_LENGTH = 256

VOCABULARY = 512

TRAINING_TEXT = """
Hello, I'm a language model, and I run a mill that grinds prompts into completions all day.
The quick brown fox jumps over the lazy dog while the miller counts the sacks of flour.
Translate English to German: The house is big. Das Haus ist gross. La maison est grande.
Question: What is the capital of France? Answer: The capital of France is Paris.
def add(a, b): return a + b  # a small function, tested once and used everywhere
One, two, three, four, five, six, seven, eight, nine, ten; then the counting starts again.
Der Müller mahlt das Korn, die Bäckerin backt das Brot, und alle essen zusammen.
"""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + message['role']) }}{% endif %}"
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def build_tiny_model(kind: Kind, folder: Path) -> Path:
    """Write a checkpoint of that kind, with its tokenizer, into `folder` and return it.

    `gpt2` has no chat template and no special token around a prompt; `llama` is the plainest of
    today's decoders; `gemma3` has sliding and
    full attention layers, a chat template and a leading <bos>; `gemma3-tied` is the same in the
    shape of the published ones, whose output is the embedding; `mamba` is a state-space model,
    `t5` an encoder-decoder, `bart` one with rules of its own: those that continuous batching does
    not take. The `wide` ones have heads of 32, the least that vLLM's attention on a CPU takes;
    `llama-biased` has two key heads, biases, and a width that no two devices share evenly.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _BUILDERS[kind][0]()
    torch_state = torch.get_rng_state()
    try:
        torch.manual_seed(20)
        model = _BUILDERS[kind][1](tokenizer)
    finally:
        torch.set_rng_state(torch_state)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_llama(tokenizer: Any, folder: Path) -> Path:
    """The plainest of the tiny models, with random weights, for a tokenizer of any kind."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(20)
        model = _llama(tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_gpt2(folder: Path, *, width: int, layers: int, context_length: int) -> Path:
    """A GPT-2 of other measures, with random weights, for what takes time."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = _gpt2_tokenizer()
    torch.manual_seed(20)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=context_length,
        n_embd=width,
        n_layer=layers,
        n_head=width // 64,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_level_tokenizer(special: dict[str, str], extra: tuple[str, ...] = ()) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    names = list(dict.fromkeys([*special.values(), *extra]))
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=names,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TRAINING_TEXT.splitlines(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        additional_special_tokens=list(extra),
        clean_up_tokenization_spaces=False,
        **special,
    )


def wrapped(tokenizer: Any, template: str) -> Any:
    """Put special tokens around every prompt, as the real model's tokenizer does."""
    from tokenizers import processors

    names = [part for part in template.split() if part != "$A"]
    ids = [(name, tokenizer.convert_tokens_to_ids(name)) for name in names]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=ids
    )
    return tokenizer


def _gpt2_tokenizer() -> Any:
    return byte_level_tokenizer({"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})


def _gemma3_tokenizer() -> Any:
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    tokenizer = byte_level_tokenizer(special, ("<start_of_turn>", "<end_of_turn>"))
    tokenizer.chat_template = CHAT_TEMPLATE
    return wrapped(tokenizer, "<bos> $A")


def _t5_tokenizer() -> Any:
    return wrapped(byte_level_tokenizer({"pad_token": "<pad>", "eos_token": "</s>"}), "$A </s>")


def _gpt2(tokenizer: Any, heads: int = 4) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=CONTEXT_LENGTH,
        n_embd=64,
        n_layer=2,
        n_head=heads,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return GPT2LMHeadModel(config)


def _llama(tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT_LENGTH,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def _gemma3(tokenizer: Any, head_dim: int = 16) -> Any:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT_LENGTH,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=head_dim,
        query_pre_attn_scalar=head_dim,
        sliding_window=16,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        initializer_range=0.3,
        tie_word_embeddings=False,  # tied random weights only ever repeat their last token
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = Gemma3ForCausalLM(config)
    end_of_turn = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, end_of_turn]
    return model


def _llama_biased(tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT_LENGTH,
        hidden_size=64,
        intermediate_size=125,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=True,
        mlp_bias=True,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    for name, bias in model.named_parameters():
        if name.endswith("bias"):  # else it is zero and hides what becomes of it
            bias.data.normal_(std=0.3)
    return model


def _gemma3_tied(tokenizer: Any) -> Any:
    import torch
    from transformers import Gemma3ForCausalLM

    config = _gemma3(tokenizer).config
    config.num_hidden_layers = 6
    config.layer_types = [*["sliding_attention"] * 5, "full_attention"]
    config.tie_word_embeddings = True
    model = Gemma3ForCausalLM(config)
    # A token's own embedding would win at the output: what the layers add is made to outweigh it.
    with torch.no_grad():
        for layer in model.model.layers:
            layer.post_attention_layernorm.weight.fill_(9.0)
            layer.post_feedforward_layernorm.weight.fill_(9.0)
    end_of_turn = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, end_of_turn]
    return model


def _mamba(tokenizer: Any) -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        state_size=8,
        num_hidden_layers=2,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    return MambaForCausalLM(config)


def _bart_tokenizer() -> Any:
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>"}
    return wrapped(byte_level_tokenizer(special), "<s> $A </s>")


def _bart(tokenizer: Any) -> Any:
    """As the published ones, with rules of its own: see its generation config."""
    from transformers import BartConfig, BartForConditionalGeneration

    config = BartConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT_LENGTH,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        init_std=0.3,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=None,
    )
    model = BartForConditionalGeneration(config)
    rules = model.generation_config
    rules.forced_bos_token_id = tokenizer.bos_token_id
    rules.forced_eos_token_id = tokenizer.eos_token_id
    rules.no_repeat_ngram_size = 3
    rules.min_length = 12
    return model


def _t5(tokenizer: Any) -> Any:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    model = T5ForConditionalGeneration(config)
    # T5's own initialisation is too tame for two hidden layers: its greedy text is one token.
    with torch.no_grad():
        for matrix in (weight for weight in model.parameters() if weight.dim() > 1):
            matrix.normal_(std=0.2)
    return model


_BUILDERS: dict[Kind, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "gpt2": (_gpt2_tokenizer, _gpt2),
    "llama": (_gpt2_tokenizer, _llama),
    "gemma3": (_gemma3_tokenizer, _gemma3),
    "gemma3-tied": (_gemma3_tokenizer, _gemma3_tied),
    "mamba": (_gpt2_tokenizer, _mamba),
    "t5": (_t5_tokenizer, _t5),
    "bart": (_bart_tokenizer, _bart),
    "gpt2-wide": (_gpt2_tokenizer, partial(_gpt2, heads=2)),
    "gemma3-wide": (_gemma3_tokenizer, partial(_gemma3, head_dim=32)),
    "llama-biased": (_gpt2_tokenizer, _llama_biased),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a tiny random checkpoint.")
    parser.add_argument("kind", choices=get_args(Kind))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    print(build_tiny_model(arguments.kind, arguments.folder))


if __name__ == "__main__":
    main()
