"""Chat templates in the shapes of real families, small, and a tokenizer for each.

Each has what makes its family hard to read: default system prompts of common words, contents that
are trimmed, a date, reasoning that is stripped from earlier turns, calls in a notation of its own.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from tests.support.tiny_models import byte_level_tokenizer

Family = Literal["chatml", "llama3", "mistral", "gemma", "deepseek-r1", "qwen3", "gpt-oss"]

_CHATML = """\
{%- if messages[0].role != 'system' %}<|im_start|>system
You are a helpful assistant. A user asks.<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

_LLAMA3 = """\
{{- bos_token }}
{%- if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}
{%- if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}
{%- set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{{- 'Cutting Knowledge Date: December 2023\\nToday Date: ' ~ date_string ~ '\\n\\n' }}
{%- if tools %}{{ 'Respond in the format {"name": function name, "parameters": dictionary of \
argument name and its value}.\\n' }}
{%- for tool in tools %}{{ tool | tojson(indent=4) }}{{ '\\n' }}{% endfor %}{% endif %}
{{- system ~ '<|eot_id|>' }}
{%- for message in messages %}
{%- if message.tool_calls %}
{%- if message.tool_calls | length > 1 %}{{ raise_exception('one call only') }}{% endif %}
{%- set call = message.tool_calls[0].function %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' ~ call.name }}
{{- '", "parameters": ' ~ (call.arguments | tojson) ~ '}<|eot_id|>' }}
{%- elif message.role == 'tool' %}
{{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' ~ message.content ~ '<|eot_id|>' }}
{%- else %}
{{- '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\\n\\n' }}
{{- message.content | trim ~ '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

#: The answer's turn has no header of its own, and the system's text joins the first user's.
_MISTRAL = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}{% set system = messages[0].content ~ '\\n\\n' %}
{%- set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}
{%- if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}[INST]{{ (system if loop.first else '') ~ message.content }}[/INST]
{%- elif message.role == 'tool' %}
{%- if message.tool_call_id | length != 9 %}{{ raise_exception('ids of nine characters') }}
{%- endif %}
{{- '[TOOL_RESULTS]' ~ message.content ~ '[/TOOL_RESULTS]' }}
{%- elif message.tool_calls %}[TOOL_CALLS] [
{%- for call in message.tool_calls %}
{{- '{"name": "' ~ call.function.name ~ '", "arguments": ' ~ (call.function.arguments | tojson) }}
{{- '}' ~ (', ' if not loop.last else ']') }}{% endfor %}{{ eos_token }}
{%- elif message.role == 'assistant' %}{{ message.content ~ eos_token }}
{%- else %}{{ raise_exception('Only user, assistant and tool roles are supported') }}
{%- endif %}
{%- endfor %}"""

#: No system role: its text is the beginning of the first user's turn.
_GEMMA = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}
{%- set first = messages[0].content ~ '\\n\\n' %}{% set messages = messages[1:] %}
{%- else %}{% set first = '' %}{% endif %}
{%- for message in messages %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}
{{- '<start_of_turn>' ~ ('model' if message.role == 'assistant' else message.role) ~ '\\n' }}
{{- first if loop.first else '' }}
{%- if message.content is string %}{{ message.content | trim }}
{%- else %}{% for part in message.content %}{{ part.text | trim }}{% endfor %}{% endif %}
{{- '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

#: Arguments of calls are JSON already; the prompt opens the reasoning.
_DEEPSEEK_R1 = """\
{{- bos_token }}
{%- for message in messages %}{% if message.role == 'system' %}{{ message.content }}{% endif %}
{%- endfor %}
{%- for message in messages %}
{%- if message.role == 'user' %}{{ '<|User|>' ~ message.content }}
{%- elif message.role == 'assistant' and message.tool_calls %}{{ '<|Assistant|>' }}
{%- for call in message.tool_calls %}
{{- '<|call|>' + call.function.name + '\\n```json\\n' + call.function.arguments + '\\n```' }}
{%- endfor %}{{ eos_token }}
{%- elif message.role == 'assistant' %}
{{- '<|Assistant|>' ~ message.content.split('</think>')[-1] ~ eos_token }}
{%- elif message.role == 'tool' %}{{ '<|output|>' ~ message.content }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}"""

_QWEN3 = """\
{%- if tools %}<|im_start|>system
{{ messages[0].content ~ '\\n\\n' if messages[0].role == 'system' else '' -}}
# Tools

You may call one or more functions to assist with the user query.
<tools>{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
</tools>
Return a json object within <tool_call></tool_call> tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- set turn = namespace(last=-1) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set turn.last = loop.index0 %}
{%- endif %}{% endfor %}
{%- for message in messages %}
{%- if message.role == 'user' or message.role == 'system' and not loop.first %}
{{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' %}
{%- set content = message.content or '' %}{% set reasoning = message.reasoning_content or '' %}
{%- if '</think>' in content %}
{%- set reasoning = content.split('</think>')[0].split('<think>')[-1] %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}
{{- '<|im_start|>assistant\\n' }}
{%- if loop.index0 > turn.last and (loop.last or reasoning) %}
{{- '<think>\\n' ~ reasoning.strip('\\n') ~ '\\n</think>\\n\\n' }}{% endif %}
{{- content }}
{%- for call in message.tool_calls or [] %}
{{- '\\n<tool_call>\\n{"name": "' ~ call.function.name ~ '", "arguments": ' }}
{{- call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% elif message.role == 'tool' %}
{%- if messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
{{- '\\n<tool_response>\\n' ~ message.content ~ '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""

#: A message ends otherwise in the middle of a turn than at its end.
_GPT_OSS = """\
{{- '<|start|>system<|message|>You are ChatGPT.\\nCurrent date: ' ~ strftime_now('%Y-%m-%d') }}
{{- '\\n\\n# Valid channels: analysis, commentary, final.<|end|>' }}
{%- if tools or messages[0].role in ['system', 'developer'] %}<|start|>developer<|message|>
{%- if messages[0].role in ['system', 'developer'] %}
{{- '# Instructions\\n\\n' ~ messages[0].content ~ '\\n\\n' }}
{%- set messages = messages[1:] %}{% endif %}
{%- if tools %}{{ '# Tools\\n\\nnamespace functions {\\n' }}
{%- for tool in tools %}{{ '// ' ~ tool.function.description ~ '\\ntype ' ~ tool.function.name }}
{{- ' = (_: {\\n' }}
{%- for name, schema in tool.function.parameters.properties.items() %}
{%- if schema.description %}{{ '// ' ~ schema.description ~ '\\n' }}{% endif %}
{{- name ~ ': ' ~ schema.type ~ ',\\n' }}{% endfor %}{{ '}) => any;\\n' }}{% endfor %}
{{- '} // namespace functions' }}{% endif %}<|end|>{% endif %}
{%- set called = namespace(name=none) %}
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{%- if message.tool_calls %}{% set call = message.tool_calls[0].function %}
{%- if message.thinking %}
{{- '<|start|>assistant<|channel|>analysis<|message|>' ~ message.thinking ~ '<|end|>' }}{% endif %}
{%- set called.name = call.name %}
{{- '<|start|>assistant to=functions.' ~ call.name ~ '<|channel|>commentary json<|message|>' }}
{{- (call.arguments | tojson) ~ '<|call|>' }}
{%- else %}
{%- if loop.last and message.thinking %}
{{- '<|start|>assistant<|channel|>analysis<|message|>' ~ message.thinking ~ '<|end|>' }}{% endif %}
{{- '<|start|>assistant<|channel|>final<|message|>' ~ message.content }}
{{- '<|return|>' if loop.last else '<|end|>' }}{% endif %}
{%- elif message.role == 'tool' %}
{{- '<|start|>functions.' ~ called.name ~ ' to=assistant<|channel|>commentary<|message|>' }}
{{- (message.content | tojson) ~ '<|end|>' }}
{%- elif message.role == 'user' %}{{ '<|start|>user<|message|>' ~ message.content ~ '<|end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|start|>assistant{% endif %}"""

TEMPLATES: dict[Family, str] = {
    "chatml": _CHATML,
    "llama3": _LLAMA3,
    "mistral": _MISTRAL,
    "gemma": _GEMMA,
    "deepseek-r1": _DEEPSEEK_R1,
    "qwen3": _QWEN3,
    "gpt-oss": _GPT_OSS,
}

#: What a prompt ends with, behind the last user's text.
OPENINGS: dict[Family, str] = {
    "chatml": "<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "[/INST]",
    "gemma": "<end_of_turn>\n<start_of_turn>model\n",
    "deepseek-r1": "<|Assistant|><think>\n",
    "qwen3": "<|im_end|>\n<|im_start|>assistant\n",
    "gpt-oss": "<|end|><|start|>assistant",
}

#: What ends an assistant's turn.
ENDS: dict[Family, str] = {
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "mistral": "</s>",
    "gemma": "<end_of_turn>",
    "deepseek-r1": "<|eos|>",
    "qwen3": "<|im_end|>",
    "gpt-oss": "<|return|>",
}

#: Tokens of their own that are left out of a text.
_SPECIAL: dict[Family, tuple[str, ...]] = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "mistral": ("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "deepseek-r1": ("<|User|>", "<|Assistant|>", "<|call|>", "<|output|>"),
    "qwen3": ("<|im_start|>", "<|im_end|>"),
    "gpt-oss": (
        *("<|start|>", "<|end|>", "<|return|>", "<|call|>"),
        *("<|channel|>", "<|message|>", "<|constrain|>"),
    ),
}
_SHOWN: dict[Family, tuple[str, ...]] = {
    "deepseek-r1": ("<think>", "</think>"),
    "qwen3": ("<think>", "</think>", "<tool_call>", "</tool_call>"),
}
_BOS: dict[Family, str] = {
    "llama3": "<|begin_of_text|>",
    "mistral": "<s>",
    "gemma": "<bos>",
    "deepseek-r1": "<|bos|>",
}
#: A text's end, as config and tokenizer name it: of some families another token than a turn's.
_EOS: dict[Family, str] = {
    "chatml": "<|endoftext|>",
    "llama3": "<|end_of_text|>",
    "mistral": "</s>",
    "gemma": "<eos>",
    "deepseek-r1": "<|eos|>",
    "qwen3": "<|endoftext|>",
    "gpt-oss": "<|endoftext|>",
}


def families() -> tuple[Family, ...]:
    return get_args(Family)


def tokens_of(family: Family) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tokens of their own, besides those of any text: left out of a text, and shown in it."""
    return _SPECIAL[family], _SHOWN.get(family, ())


def family_tokenizer(family: Family) -> Any:
    """A byte-level tokenizer with the family's tokens and template."""
    special = {"eos_token": _EOS[family]}
    if family in _BOS:
        special["bos_token"] = _BOS[family]
    tokenizer = byte_level_tokenizer(special, _SPECIAL[family])
    tokenizer.add_tokens(list(_SHOWN.get(family, ())))
    tokenizer.chat_template = TEMPLATES[family]
    return tokenizer
