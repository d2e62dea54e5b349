"""Tiny checkpoints that say what they are told to, token for token: GPT-2s whose positions speak.

The chat templates are those of real models, cut down to what is looked at in them. A parrot
knows the length of one prompt only: it speaks after that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from tests.support.tiny_models import byte_level_tokenizer

Style = Literal["qwen3", "r1", "harmony", "granite", "magistral", "declared"]

#: What each of them is asked.
CHAT = [{"role": "user", "content": "What is the capital of France?"}]

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 12},
                "days": {"type": "integer"},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME = {
    "type": "function",
    "function": {
        "name": "time",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"enum": ["UTC", "CET"]}},
            "required": ["zone"],
            "additionalProperties": False,
        },
    },
}

_QWEN3 = """\
{%- if tools %}<|im_start|>system
You may call functions within <tools></tools>:
<tools>{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
</tools>
For each call return a json object with its name and arguments:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content }}{% for call in message.tool_calls or [] %}<tool_call>
{{ call.function | tojson }}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""

_R1 = """\
{%- for message in messages %}
{%- if message.role == 'assistant' %}<|Assistant|>{{ message.content.split('</think>')[-1] }}\
<|end|>
{%- else %}<|User|>{{ message.content }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|Assistant|><think>
{% endif %}"""

_HARMONY = """\
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{%- if message.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ message.thinking }}\
<|end|>{% endif %}<|start|>assistant<|channel|>final<|message|>{{ message.content }}<|end|>
{%- else %}<|start|>{{ message.role }}<|message|>{{ message.content }}<|end|>{% endif %}
{%- endfor %}
{%- if tools %}<|start|>developer<|message|>{{ tools | tojson }}<|end|>{% endif %}
{%- if add_generation_prompt %}<|start|>assistant{% endif %}"""

_GRANITE = """\
{%- for message in messages %}<|start_of_role|>{{ message.role }}<|end_of_role|>\
{{ message.content }}<|end_of_text|>
{% endfor %}
{%- if thinking %}Write down your thoughts after 'Here is my thought process:' and write your \
response after 'Here is my response:' for each user query.{% endif %}
{%- if tools %}Respond with <|tool_call|> followed by a JSON list of tools: {{ tools | tojson }}
{%- endif %}
{%- if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"""

_MAGISTRAL = """\
{%- if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' %}{{ message.content }}{% if message.tool_calls %}[TOOL_CALLS]\
{{ message.tool_calls | tojson }}{% endif %}</s>
{%- else %}[INST]{{ message.content }}[/INST]{% endif %}{% endfor %}
{#- [THINK] and [/THINK] stand around a draft #}"""

TEMPLATES: dict[Style, str] = {
    "qwen3": _QWEN3,
    "r1": _R1,
    "harmony": _HARMONY,
    "granite": _GRANITE,
    "magistral": _MAGISTRAL,
    "declared": _R1.replace("think>", "draft>"),
}

#: Tokens of their own: those that show in a text, and those that a decoder leaves out.
_SHOWN: dict[Style, tuple[str, ...]] = {
    "qwen3": ("<think>", "</think>", "<tool_call>", "</tool_call>"),
    "r1": ("<think>", "</think>"),
    "declared": ("<draft>", "</draft>"),
}
_HIDDEN: dict[Style, tuple[str, ...]] = {
    "qwen3": ("<|im_start|>", "<|im_end|>"),
    "r1": ("<|User|>", "<|Assistant|>", "<|end|>"),
    "declared": ("<|User|>", "<|Assistant|>", "<|end|>"),
    "harmony": (
        *("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"),
        *("<|end|>", "<|return|>", "<|call|>"),
    ),
    "granite": ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", "<|tool_call|>"),
    "magistral": ("[INST]", "[/INST]", "[TOOL_CALLS]", "[THINK]", "[/THINK]", "</s>"),
}
_ENDS: dict[Style, str] = {
    "qwen3": "<|im_end|>",
    "r1": "<|end|>",
    "declared": "<|end|>",
    "harmony": "<|return|>",
    "granite": "<|end_of_text|>",
    "magistral": "</s>",
}

#: As a checkpoint brings it, for `tokenizer.parse_response`.
RESPONSE_TEMPLATE = {
    "version": 1,
    "start_anchor": "<|Assistant|>",
    "fields": {
        "reasoning_content": {"open": "<draft>", "close": "</draft>"},
        "content": {"close": "<|end|>"},
        "tool_calls": {
            "open": "CALL ",
            "close": ";",
            "content": "json",
            "repeats": True,
            "transform": {"type": "function", "function": "{content}"},
        },
    },
}


def parrot_tokenizer(style: Style) -> Any:
    """A byte-level tokenizer with the marks and the chat template of a style."""
    end = _ENDS[style]
    tokenizer = byte_level_tokenizer(
        {"eos_token": end}, tuple(n for n in _HIDDEN[style] if n != end)
    )
    tokenizer.add_tokens(list(_SHOWN.get(style, ())))
    tokenizer.chat_template = TEMPLATES[style]
    if style == "declared":
        tokenizer.response_template = RESPONSE_TEMPLATE
    return tokenizer


def rendered(tokenizer: Any, messages: Sequence[Any] = CHAT, **arguments: Any) -> str:
    arguments.setdefault("add_generation_prompt", True)
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **arguments))


def build_parrot(
    style: Style,
    says: str,
    folder: Path,
    *,
    messages: Sequence[Any] = CHAT,
    context_length: int = 1024,
    end_is_listed: bool = True,
    **arguments: Any,
) -> Path:
    """A checkpoint that answers `messages` with `says` and its end token.

    `end_is_listed`: its config names that end token, and not another one. `arguments`: what else
    the prompt is rendered with.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = parrot_tokenizer(style)
    prompt = tokenizer.encode(rendered(tokenizer, messages, **arguments), add_special_tokens=False)
    script = [*tokenizer.encode(says, add_special_tokens=False), tokenizer.eos_token_id]
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=context_length,
        n_embd=128,
        n_layer=1,
        n_head=4,
        n_inner=512,  # four times the width: KerasHub knows no other
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id
        if end_is_listed
        else tokenizer.convert_tokens_to_ids("~"),
    )
    state = torch.get_rng_state()
    try:
        torch.manual_seed(20)
        model = GPT2LMHeadModel(config)
        with torch.no_grad():
            words, places = model.transformer.wte.weight, model.transformer.wpe.weight
            words.normal_()
            # The layers add nothing: a position says the word that it has most of.
            for layer in model.transformer.h:
                layer.attn.c_proj.weight.zero_()
                layer.mlp.c_proj.weight.zero_()
            for place, token_id in enumerate(script, start=len(prompt) - 1):
                places[place] = 10 * words[token_id]
    finally:
        torch.set_rng_state(state)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def styles() -> tuple[Style, ...]:
    return get_args(Style)
