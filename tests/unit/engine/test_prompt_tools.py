"""Tools reach the model through its own template, or the job says why they can't."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from db.sampling import SamplingParams
from tests.support.checkpoints import Checkpoint
from worker.engine.protocol import Failed, Request
from worker.engine.shared.prompt import Prompt, Prompter

TEMPLATE = (
    "{% for tool in tools or [] %}<{{ tool.function.name }}>{% endfor %}"
    "{% for message in messages %}{{ message.role }}:{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}"
    "{{ call.function.name }}{{ call.function.arguments | tojson }}{% endfor %}"
    "{% endfor %}"
)
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@pytest.fixture
def tokenizer(checkpoint: Checkpoint) -> Any:
    return transformers.AutoTokenizer.from_pretrained(checkpoint("gemma3"))


def asked(tools: list[dict[str, Any]] | None, *messages: dict[str, Any]) -> Request:
    return Request("a", SamplingParams(), seed=0, messages=messages, tools=tools)


def test_given_tools_and_calls_when_rendered_then_the_template_shows_them(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATE
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    prompt = Prompter(tokenizer).prompt(
        asked(
            [TOOL],
            {"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "content": "2"},
        )
    )
    assert isinstance(prompt, Prompt)
    assert prompt.text == '<add>user:1 + 1?assistant:add{"a": 1}tool:2'


def test_given_a_template_without_tools_when_asked_for_them_then_the_job_says_so(
    tokenizer: Any,
) -> None:
    prompt = Prompter(tokenizer).prompt(asked([TOOL], {"role": "user", "content": "x"}))
    assert isinstance(prompt, Failed)
    assert prompt.code == "not_rendered"
    assert "does not render tools[0]: leave the tools out" in prompt.message
