"""Calls of tools in a chat: kept as they are, or refused by their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from producer.reading import Line, read
from producer.reading.chat import check_messages
from producer.reading.texts import Refusal
from producer.reading.tools import check_tools

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def test_given_calls_of_tools_in_a_chat_when_read_then_they_are_kept() -> None:
    messages = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    ]
    kept = check_messages(messages, 1000)
    assert kept[1] == {"role": "assistant", "tool_calls": [CALL]}
    assert kept[2]["tool_call_id"] == "c1"


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, "only an assistant's message"),
        ({"role": "assistant", "tool_calls": []}, r"messages\[0\].content is missing"),
        ({"role": "assistant", "tool_calls": [{}]}, r"tool_calls\[0\]: it must be"),
        ({"role": "assistant", "tool_calls": [{**CALL, "type": "x"}]}, "only functions"),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "\0"}}]},
            "arguments: it must be text",
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": "\0", "arguments": ""}}],
            },
            "NUL",
        ),
    ],
)
def test_given_bad_calls_of_tools_when_read_then_the_place_is_named(
    message: dict[str, Any], says: str
) -> None:
    with pytest.raises(Refusal, match=says):
        check_messages([message], 1000)


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def test_given_tools_beside_messages_when_read_then_they_are_kept(tmp_path: Path) -> None:
    line = {"messages": [{"role": "user", "content": "1 + 1?"}], "tools": [TOOL]}
    openai = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": line}
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(line)}\n{json.dumps(openai)}\n")
    for one in read([str(path)]):
        assert isinstance(one, Line)
        assert one.request["tools"] == [TOOL]


@pytest.mark.parametrize(
    ("tools", "says"),
    [([], "'tools' is empty"), ("x", "it must be a list"), ([{}], r"tools\[0\]: it must be")],
)
def test_given_bad_tools_when_read_then_the_place_is_named(tools: object, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        check_tools(tools, 1000)
