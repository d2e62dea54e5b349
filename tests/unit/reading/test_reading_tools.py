"""What a chat's parameters need of the chat: refused with its line where it is not there."""

from __future__ import annotations

from typing import Any

import pytest

from db.errors import ParameterError
from db.sampling import SamplingParams, merge, normalise
from producer.reading.lines import BadLine, Line
from producer.reading.requests import RequestParser
from tests.support.parrots import TIME, WEATHER

CHAT = [{"role": "user", "content": "Hi"}]
NAMED = {"type": "function", "function": {"name": "time"}}
UNFOLLOWABLE = {
    "type": "function",
    "function": {"name": "odd", "parameters": {"properties": {"x": {"uniqueItems": True}}}},
}


def parse(item: Any, **defaults: Any) -> Line | BadLine:
    return RequestParser(None, normalise(defaults), 1 << 20).parse(item, "x", 1)


def chat(**more: Any) -> dict[str, Any]:
    return {"messages": CHAT, **more}


@pytest.mark.parametrize("choice", ["none", "auto", "required", NAMED])
def test_given_a_choice_when_read_then_it_is_a_parameter(choice: Any) -> None:
    line = parse(chat(tools=[WEATHER, TIME], tool_choice=choice, parallel_tool_calls=False))
    assert isinstance(line, Line)
    assert line.request["params"] == {"tool_choice": choice, "parallel_tool_calls": False}
    body = chat(tools=[WEATHER, TIME], tool_choice=choice, model="m")
    url = "/v1/chat/completions"
    whole = {"custom_id": "a", "method": "POST", "url": url, "body": body}
    assert isinstance(parse(whole), Line)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (chat(tool_choice="required"), "has 'tool_choice' and no 'tools'"),
        (chat(tools=[WEATHER], tool_choice=NAMED), "names the function 'time', and 'tools' has"),
        (chat(tools=[WEATHER], tool_choice="sometimes"), "'tool_choice' is one of none, auto"),
        (chat(tools=[WEATHER], tool_choice="sometimes"), "not 'sometimes'"),
        (chat(tools=[WEATHER, WEATHER]), "tools[1] has the name 'weather', as one before it"),
        (
            chat(tools=[{"type": "function", "function": {"name": "a b"}}]),
            "tools[0] has the name 'a b': use 1 to 64 letters",
        ),
        (chat(tools=[WEATHER], tool_choice={"name": "x"}), "'tool_choice' is one of none, auto"),
        (chat(tools=[WEATHER, UNFOLLOWABLE], tool_choice="required"), "tools[1].function.param"),
        (chat(tools=[WEATHER], tool_choice="required", regex="x"), "can't have a structure"),
        (chat(chat_template_kwargs={"tools": []}), "chat_template_kwargs can't have 'tools'"),
        (chat(chat_template_kwargs=[1]), "chat_template_kwargs"),
        (chat(chat_template_kwargs={"x": "a\0b"}), "NUL"),
        (chat(continue_final_message=True), "the last message is not the assistant's"),
        (
            chat(continue_final_message=True, add_generation_prompt=True),
            "ask for one of them",
        ),
        ({"prompt": "x", "tool_choice": "required"}, "is a prompt"),
        ({"prompt": "x", "chat_template_kwargs": {"a": 1}}, "is a prompt"),
        (
            {"messages": [{"role": "user", "content": "x", "reasoning_content": "y"}]},
            "only an assistant's",
        ),
    ],
)
def test_given_what_does_not_fit_when_read_then_the_reason_names_it(
    item: dict[str, Any], reason: str
) -> None:
    bad = parse(item)
    assert isinstance(bad, BadLine)
    assert reason in bad.reason
    assert "\n" not in bad.reason


@pytest.mark.parametrize("item", ["Hi", {"prompt": "Hi"}, {"prompt": "Hi", "max_tokens": 3}])
def test_given_a_batchs_parameter_for_chats_when_a_prompt_is_read_then_it_is_refused(
    item: Any,
) -> None:
    bad = parse(item, chat_template_kwargs={"enable_thinking": False})
    assert isinstance(bad, BadLine)
    assert "chat_template_kwargs" in bad.reason
    line = parse(chat(), chat_template_kwargs={"enable_thinking": False})
    assert isinstance(line, Line)


def test_given_a_batchs_choice_when_a_line_lacks_the_function_then_the_line_is_refused() -> None:
    assert isinstance(parse(chat(tools=[TIME]), tool_choice=NAMED), Line)
    assert isinstance(parse(chat(tools=[WEATHER]), tool_choice=NAMED), BadLine)
    assert isinstance(parse(chat(), tool_choice=NAMED), BadLine)


def test_given_an_odd_function_that_need_not_be_called_when_read_then_it_is_taken() -> None:
    assert isinstance(parse(chat(tools=[WEATHER, UNFOLLOWABLE])), Line)
    assert isinstance(parse(chat(tools=[TIME, UNFOLLOWABLE], tool_choice=NAMED)), Line)


def test_given_thinking_in_an_earlier_message_when_read_then_it_is_kept() -> None:
    answer = {"role": "assistant", "content": "Hello", "reasoning_content": "Hm."}
    line = parse({"messages": [*CHAT, answer, *CHAT]})
    assert isinstance(line, Line)
    assert line.request["messages"][1] == answer


def test_given_nothing_of_this_when_merged_then_it_is_not_in_force() -> None:
    params = merge({}, {})
    assert isinstance(params, SamplingParams)
    assert params.tool_choice is None
    with pytest.raises(ParameterError, match="ask for one"):
        merge({"add_generation_prompt": True}, {"continue_final_message": True})


@pytest.mark.parametrize("defaults", [{"tool_choice": "auto"}, {"parallel_tool_calls": False}])
def test_idle_choice_of_the_batch_suits_lines_without_tools(defaults: dict[str, Any]) -> None:
    for item in ("hi", {"prompt": "hi"}, {"prompt": "hi", "n": 2}, chat()):
        assert isinstance(parse(item, **defaults), Line)
    assert isinstance(parse(chat(tool_choice="none"), tool_choice="required"), Line)
    assert isinstance(parse("hi", tool_choice="required"), BadLine)
    assert isinstance(parse("hi", continue_final_message=True, **defaults), BadLine)
