"""OpenAI's parameters in a body, a line, a table and a batch's defaults: what changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from producer.reading import BadLine, Line, read
from producer.reading.reader import parse

MESSAGES = [{"role": "user", "content": "one two three"}]

#: Parameters of a chat's body, and what is stored of them.
ACCEPTED: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    ({"max_tokens": 9, "max_completion_tokens": 9}, {"max_tokens": 9}),
    ({"logit_bias": {}}, None),
    (
        {"frequency_penalty": 0, "presence_penalty": 0, "top_p": 1, "n": 1, "stop": None},
        {"top_p": 1.0, "n": 1},
    ),
    (
        dict.fromkeys(
            (
                *("frequency_penalty", "logit_bias", "functions", "function_call", "seed", "tools"),
                *("stream_options", "service_tier", "reasoning_effort", "response_format"),
            )
        ),
        None,
    ),
    ({"service_tier": "auto"}, None),
    ({"stop": ""}, {"stop": []}),
    ({"stop": []}, {"stop": []}),
    ({"stream": False, "stream_options": None}, None),
    ({"tools": [], "tool_choice": "none", "parallel_tool_calls": True}, None),
    ({"logprobs": False, "top_logprobs": 0}, {"logprobs": False, "top_logprobs": 0}),
    ({"response_format": {"type": "text"}}, {"response_format": {"type": "text"}}),
    ({"user": "alice", "metadata": {"run": "7"}, "store": False}, None),
]


def body_line(params: dict[str, Any]) -> dict[str, Any]:
    body = {"model": "m", "messages": MESSAGES, **params}
    return {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}


def parsed(item: object) -> Line | BadLine:
    return parse(item, source="x", number=1)


@pytest.mark.parametrize(("params", "stored"), ACCEPTED)
def test_neutral_parameters_of_a_body_are_accepted(
    params: dict[str, Any], stored: dict[str, Any] | None
) -> None:
    for item in (body_line(params), {"messages": MESSAGES, **params}):
        line = parsed(item)
        assert isinstance(line, Line)
        assert line.request == {"messages": MESSAGES} | ({"params": stored} if stored else {})


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"frequency_penalty": 0.7}, "parameter 'frequency_penalty' is 0.7: not supported"),
        ({"reasoning_effort": "low"}, "parameter 'reasoning_effort' is 'low': give chat_template"),
        ({"service_tier": "flex"}, "parameter 'service_tier' is 'flex'"),
        ({"max_tokens": 9, "max_completion_tokens": 8}, "given twice, with different values"),
        ({"tools": [], "tool_choice": "required"}, "has 'tool_choice' and no 'tools'"),
        ({"functions": [{"name": "f"}]}, "write 'tools'"),
        ({"top_logprobs": 2}, "top_logprobs needs logprobs"),
    ],
)
def test_parameter_that_asks_for_something_is_refused(params: dict[str, Any], reason: str) -> None:
    for item in (body_line(params), {"messages": MESSAGES, **params}):
        bad = parsed(item)
        assert isinstance(bad, BadLine)
        assert reason in bad.reason


def test_neutral_column_of_a_table_is_accepted_by_row(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("prompt,frequency_penalty,suffix\none,0,\ntwo,,\nthree,0.5,\n")
    one, two, three = read([str(file)])
    assert isinstance(one, Line)
    assert isinstance(two, Line)
    assert (one.request, two.request) == ({"prompt": "one"}, {"prompt": "two"})
    assert isinstance(three, BadLine)
    assert "parameter 'frequency_penalty' is 0.5" in three.reason
