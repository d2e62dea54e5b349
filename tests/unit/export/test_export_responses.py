"""Results of lines for /v1/responses in the OpenAI format."""

from __future__ import annotations

from typing import Any

import orjson
from openai.types.responses import Response

from db.records import Result
from producer.export import openai_batch
from tests.support.results import batch, result

FUNCTION = {"name": "f", "parameters": {"type": "object"}}
REQUEST: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hi"}],
    "tools": [{"type": "function", "function": FUNCTION}],
    "params": {"tool_choice": {"type": "function", "function": {"name": "f"}}},
    "endpoint": "/v1/responses",
}


def answered(*samples: Result) -> Response:
    (line,) = openai_batch.lines(samples, batch())
    body = orjson.loads(line)["response"]["body"]
    assert "choices" not in body
    return Response.model_validate(body)


def test_text_is_a_message_of_a_response_object() -> None:
    response = answered(result(text="Hello", finish_reason="stop", request=REQUEST))
    assert (response.object, response.status) == ("response", "completed")
    assert response.output_text == "Hello"
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert response.model_dump()["tool_choice"] == {"type": "function", "name": "f"}


def test_cut_answer_and_calls_have_their_items() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    calls = orjson.dumps([call]).decode()
    response = answered(
        result(text="", reasoning="Hm.", tool_calls=calls, finish_reason="length", request=REQUEST)
    )
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert [item.type for item in response.output] == ["reasoning", "function_call"]
