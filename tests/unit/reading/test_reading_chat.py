"""Calls of tools in a chat: kept as they are, or refused by their place."""

from __future__ import annotations

from typing import Any

import pytest

from producer.reading.chat import check_messages
from producer.reading.texts import Refusal

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
        ({"role": "assistant", "tool_calls": []}, r"messages\[0\].tool_calls is a list"),
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
