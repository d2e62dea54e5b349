"""The engine `openai` over the wire: thinking, and calls of functions in place of text."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from db.exact_json import dumps, loads
from tests.support.collector import completed, request
from tests.support.endpoint import EchoEndpoint, Status
from tests.support.parrots import TIME, WEATHER
from worker.engine.openai_api.settings import Dialect
from worker.engine.protocol import EngineConfig
from worker.engine.registry import create

CHAT = [{"role": "user", "content": "good morning miller"}]
TOOLS = [WEATHER, TIME]


def engine(endpoint: EchoEndpoint, dialect: Dialect = Dialect.NONE) -> EngineConfig:
    options = {"base_url": endpoint.url, "extensions": str(dialect)}
    return EngineConfig("echo", max_concurrency=4, options=options)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_given_an_endpoint_that_thinks_when_asked_then_the_thinking_is_apart(name: str) -> None:
    with EchoEndpoint(thinks_in=name) as endpoint:
        made = create("openai", engine(endpoint))
        made.start()
        answers = completed(made, [request("a", CHAT, n=2), request("b", "good morning")])
        made.close()
    assert [(one.reasoning, one.text) for one in answers["a"].samples] == [
        ("Hm.", "good morning miller")
    ] * 2
    assert answers["b"].samples[0].reasoning is None


def test_given_calls_after_trouble_when_asked_then_they_come_as_the_endpoint_gave_them() -> None:
    def busy_once(number: int, body: object) -> Status | None:
        return Status(503) if number == 0 else None

    with EchoEndpoint(faults=busy_once) as endpoint:
        made = create("openai", engine(endpoint))
        made.start()
        named = {"type": "function", "function": {"name": "time"}}
        wanted = [
            replace(request("first", CHAT, tool_choice="required"), tools=TOOLS),
            replace(request("named", CHAT, tool_choice=named), tools=TOOLS),
            replace(request("auto", CHAT), tools=TOOLS),
        ]
        answers = {name: one.samples[0] for name, one in completed(made, wanted).items()}
        made.close()
    for name, function in (("first", "weather"), ("named", "time")):
        one = answers[name]
        assert (one.text, one.finish_reason) == ("", "tool_calls")
        (call,) = one.tool_calls or ()
        assert call["id"] == "call_0"
        assert call["function"]["name"] == function
        assert json.loads(call["function"]["arguments"]) == {"said": "good morning miller"}
    assert (answers["auto"].text, answers["auto"].tool_calls) == ("good morning miller", None)
    assert all(body["tools"] == TOOLS for body in endpoint.bodies)


def test_given_vllm_when_asked_then_it_is_told_how_the_chat_is_rendered() -> None:
    with EchoEndpoint(vllm=True) as endpoint:
        made = create("openai", engine(endpoint, Dialect.VLLM))
        made.start()
        switches = {"enable_thinking": False}
        completed(made, [request("a", CHAT, chat_template_kwargs=switches)])
        made.close()
    assert endpoint.bodies[0]["chat_template_kwargs"] == switches


def test_numbers_of_tools_are_sent_with_their_digits() -> None:
    schema = '{"type": "object", "properties": {"x": {"enum": [1.10, 1e400, -0]}}}'
    tool = {"type": "function", "function": {"name": "f", "parameters": loads(schema)}}
    with EchoEndpoint() as endpoint:
        made = create("openai", engine(endpoint))
        made.start()
        completed(made, [replace(request("a", CHAT), tools=[tool])])
        made.close()
    (body,) = endpoint.bodies
    assert b'"enum":[1.10,1e400,-0]' in dumps(body)
