"""An API's answer as history: kept with its meaning, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from producer.reading.chat import check_messages
from producer.reading.texts import Refusal

ASK = {"role": "user", "content": "one"}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def checked(message: dict[str, Any]) -> list[dict[str, Any]]:
    return check_messages([ASK, message], 10_000)[1:]


def answer(**more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "two", **more}


@pytest.mark.parametrize(
    "more",
    [
        {"tool_calls": []},
        {"refusal": None, "audio": None, "function_call": None, "tool_calls": None},
        {"refusal": None, "annotations": [], "audio": None, "function_call": None},
        {"annotations": [{"type": "url_citation", "url_citation": {}}]},
        {"reasoning_content": None, "reasoning": "", "reasoning_details": []},
        {"parsed": {"a": 1}, "provider_specific_fields": {}, "images": [], "thinking_blocks": None},
        {"id": "msg_1", "type": "message", "model": "m", "usage": {"input_tokens": 1}},
        {"stop_reason": "end_turn", "stop_sequence": None, "container": None},
    ],
)
def test_what_only_describes_an_answer_is_left_out(more: dict[str, Any]) -> None:
    assert checked(answer(**more)) == [{"role": "assistant", "content": "two"}]


@pytest.mark.parametrize(
    "more",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"thinking": "hm"},
        {"reasoning": "hm", "reasoning_content": "hm", "reasoning_details": [{"text": "hm"}]},
        {"content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, "two"]},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "two", "citations": None},
            ]
        },
    ],
)
def test_reasoning_is_kept_under_any_name(more: dict[str, Any]) -> None:
    assert checked(answer(**more)) == [
        {"role": "assistant", "content": "two", "reasoning_content": "hm"}
    ]


def test_calls_of_an_older_api_and_of_anthropic_become_tool_calls() -> None:
    older = {"role": "assistant", "content": None, "function_call": CALL["function"]}
    assert checked(older) == [
        {
            "role": "assistant",
            "tool_calls": [{"type": "function", "function": CALL["function"]}],
        }
    ]
    blocks = [
        {"type": "text", "text": "two"},
        {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}, "caller": None},
    ]
    assert checked(answer(content=blocks)) == [
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "add", "arguments": {"a": 1}},
                }
            ],
            "content": "two",
        }
    ]


def test_what_only_describes_a_call_is_left_out() -> None:
    function = {**CALL["function"], "parsed_arguments": {"a": 1}}  # type: ignore[dict-item]
    (message,) = checked(answer(tool_calls=[{**CALL, "function": function, "index": 0}]))
    assert message["tool_calls"] == [CALL]


def test_tool_results_become_tool_messages_in_their_order() -> None:
    blocks = [
        {"type": "tool_result", "tool_use_id": "c1", "content": "3", "is_error": False},
        {
            "type": "tool_result",
            "tool_use_id": "c2",
            "content": [{"type": "text", "text": "4"}, {"type": "text", "text": "5"}],
        },
        {"type": "tool_result", "tool_use_id": "c3"},
        {"type": "text", "text": "go on", "cache_control": {"type": "ephemeral"}},
    ]
    texts = [{"type": "text", "text": "4"}, {"type": "text", "text": "5"}]
    assert checked({"role": "user", "content": blocks}) == [
        {"role": "tool", "content": "3", "tool_call_id": "c1"},
        {"role": "tool", "content": texts, "tool_call_id": "c2"},
        {"role": "tool", "content": "", "tool_call_id": "c3"},
        {"role": "user", "content": "go on"},
    ]
    function = {"role": "function", "name": "add", "content": "3"}
    assert checked(function) == [{"role": "tool", "content": "3", "name": "add"}]


def test_refusal_is_what_the_assistant_said() -> None:
    no = {"role": "assistant", "content": "no"}
    assert checked(answer(content=None, refusal="no")) == [no]
    assert checked(answer(content=[{"type": "refusal", "refusal": "no"}])) == [no]


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ([{"type": "text", "text": "one", "cache_control": {"type": "ephemeral"}}], "one"),
        (["one"], "one"),
        ([{"type": "input_text", "text": "one"}], "one"),
        (["one", "two"], [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]),
    ],
)
def test_one_text_part_is_kept_as_text_and_several_as_a_list(content: Any, kept: Any) -> None:
    assert checked({"role": "user", "content": content}) == [{"role": "user", "content": kept}]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (answer(audio={"id": "a"}), "[1]: unknown key 'audio'"),
        (answer(refusal="no"), "[1].refusal: the message has a content as well"),
        (answer(function_call={"name": "f"}), "[1].function_call[0].function.arguments"),
        (answer(function_call=CALL["function"], tool_calls=[CALL]), "has tool_calls as well"),
        (answer(reasoning="a", thinking="b"), "[1]: its reasoning is given twice"),
        (answer(reasoning_details=[{"type": "reasoning.encrypted"}]), "'reasoning_details'"),
        (answer(reasoning=3), "[1].reasoning is a number"),
        (answer(content=[{"type": "redacted_thinking", "data": "x"}]), "'redacted_thinking'"),
        (answer(content=[{"type": "tool_use", "name": "f"}]), "a tool_use has a name (text) and"),
        (
            answer(content=[{"type": "tool_use", "name": "f", "input": {}}, "after"]),
            "[1].content[1]: a message has thinking, then text, then tool_use",
        ),
        (answer(content=[{"type": "tool_result"}]), "only a message of the user has it"),
        ({"role": "user", "content": [{"type": "thinking"}]}, "only a message of the assistant"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "[1].content[0] has the type"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "'input_audio': only text"),
        ({"role": "user", "content": [{"type": "file"}]}, "'file': only text parts"),
        ({"role": "user", "content": [{"type": "text", "text": "a", "txt": 1}]}, "key 'txt'"),
        ({"role": "user", "content": [{"type": ["text"], "text": "a"}]}, "only text parts"),
        (
            {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "image"}]}]},
            "[1].content[0].content[0] has the type 'image'",
        ),
        ({"role": "user", "content": "a", "reasoning": "b"}, "only an assistant's message"),
    ],
)
def test_what_a_template_can_not_render_is_refused_by_name(
    message: dict[str, Any], says: str
) -> None:
    with pytest.raises(Refusal) as refusal:
        checked(message)
    assert says in refusal.value.reason
    assert refusal.value.reason.startswith("messages[1]")


def test_parts_of_a_chat_count_against_its_limit() -> None:
    with pytest.raises(Refusal, match="the chat has"):
        check_messages([{"role": "user", "content": ["a" * 50, "b" * 50]}], 100)
