"""Lines for OpenAI's /v1/responses: their plain subset becomes a chat."""

from __future__ import annotations

from typing import Any

import pytest

from producer.reading import BadLine, Line, parse

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
USER = {"role": "user", "content": "one"}
FUNCTION = {"name": "f", "parameters": {"type": "object"}}


def parsed(**body: Any) -> Line | BadLine:
    line = {"custom_id": "e", "method": "POST", "url": "/v1/responses", "body": body}
    return parse(line, source="x", number=1)


@pytest.mark.parametrize(
    ("body", "request_"),
    [
        ({"input": "one"}, {"messages": [USER]}),
        (
            {"input": "one", "instructions": "Be brief.", "max_output_tokens": 8},
            {
                "messages": [{"role": "system", "content": "Be brief."}, USER],
                "params": {"max_tokens": 8},
            },
        ),
        (
            {
                "input": [
                    {
                        "type": "message",
                        "role": "user",
                        "id": "m",
                        "status": "completed",
                        "content": [{"type": "input_text", "text": "one"}],
                    },
                    {"role": "assistant", "content": [{"type": "output_text", "text": "two"}]},
                    USER,
                ]
            },
            {"messages": [USER, {"role": "assistant", "content": "two"}, USER]},
        ),
        (
            {
                "input": "one",
                "store": True,
                "metadata": {"a": "b"},
                "user": "u",
                "truncation": "disabled",
                "background": False,
                "previous_response_id": None,
                "text": {"format": {"type": "text"}, "verbosity": "medium"},
                "tools": [],
                "tool_choice": "auto",
                "temperature": 0.5,
                "top_p": 0.9,
            },
            {
                "messages": [USER],
                "params": {
                    "temperature": 0.5,
                    "top_p": 0.9,
                    "response_format": {"type": "text"},
                },
            },
        ),
        (
            {
                "input": "one",
                "tools": [{"type": "function", **FUNCTION, "strict": None}],
                "tool_choice": {"type": "function", "name": "f"},
            },
            {
                "messages": [USER],
                "tools": [{"type": "function", "function": FUNCTION}],
                "params": {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            },
        ),
        (
            {
                "input": "one",
                "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
            },
            {
                "messages": [USER],
                "params": {
                    "response_format": {
                        "type": "json_schema",
                        "json_schema": {"name": "n", "schema": SCHEMA},
                    }
                },
            },
        ),
    ],
)
def test_plain_response_request_is_a_chat(body: dict[str, Any], request_: dict[str, Any]) -> None:
    line = parsed(model="m", **body)
    assert isinstance(line, Line), line
    assert line.request == {**request_, "endpoint": "/v1/responses"}
    assert (line.model, line.custom_id) == ("m", "e")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"previous_response_id": "r"}, "'previous_response_id' is 'r': not supported"),
        ({"reasoning": {"effort": "low"}}, "'reasoning' is"),
        ({"include": ["x"]}, "'include' is"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type is 'web_search'"),
        ({"input": [{"type": "function_call_output"}]}, "input[0].type is 'function_call_output'"),
        ({"input": [USER, 3]}, "input[1] is a number"),
        ({"input": []}, "'input' is empty"),
        ({"input": 3}, "'input' is a number"),
        ({"instructions": [USER]}, "'instructions' is a list"),
        ({"text": {"verbosity": "low"}}, "text.verbosity is 'low'"),
        ({"max_output_tokens": -1}, "max_tokens"),
        ({"messages": [USER]}, "needs 'input' and no 'messages'"),
    ],
)
def test_what_a_chat_lacks_is_refused_by_name(body: dict[str, Any], reason: str) -> None:
    bad = parsed(**{"input": "one", **body})
    assert isinstance(bad, BadLine)
    assert reason in bad.reason
