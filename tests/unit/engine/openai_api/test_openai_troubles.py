from __future__ import annotations

import json

import pytest

from worker.engine.openai_api import troubles


def _openai(message: str, code: str | None = None) -> str:
    return json.dumps({"error": {"message": message, "type": "x", "param": None, "code": code}})


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, _openai("top_p is bad"), "endpoint_refused"),
        (422, json.dumps({"detail": "Unexpected fields"}), "endpoint_refused"),
        (413, "too large", "endpoint_refused"),
        (301, "", "endpoint_refused"),
        (401, _openai("Incorrect API key"), "endpoint_denied"),
        (403, _openai("country"), "endpoint_denied"),
        (400, '[{"error": {"code": 400, "message": "API key not valid."}}]', "endpoint_denied"),
        (429, _openai("pay", "insufficient_quota"), "endpoint_denied"),
        (404, _openai("The model 'x' does not exist"), "endpoint_not_found"),
        (400, _openai("so you must provide a chat template if"), "no_chat_template"),
        (400, _openai("…", "context_length_exceeded"), "prompt_too_long"),
        (400, _openai("This model's maximum context length is 16 tokens."), "prompt_too_long"),
        (400, _openai("The input token count (9) exceeds the maximum"), "prompt_too_long"),
    ],
)
def test_given_a_status_that_no_repeat_mends_when_sorted_then_it_is_never_tried_again(
    status: int, body: str, code: str
) -> None:
    trouble = troubles.of_status(status, {}, body, 0)
    assert (trouble.failure.code, trouble.failure.retriable) == (code, False)
    assert not trouble.overload
    assert not trouble.everybody
    assert str(status) in trouble.failure.message


def test_given_a_model_that_only_chats_when_asked_otherwise_then_the_option_is_named() -> None:
    body = _openai("This is a chat model and not supported in the v1/completions endpoint.")
    failure = troubles.of_status(404, {}, body, 0).failure
    assert (failure.code, failure.retriable) == ("endpoint_not_found", False)
    assert "api to chat" in failure.message


@pytest.mark.parametrize(
    ("status", "overload", "everybody"),
    [
        (408, False, False),
        (409, False, False),
        (425, False, False),
        (429, True, True),
        (500, True, False),
        (502, True, True),
        (503, True, True),
        (504, True, True),
        (529, True, True),
    ],
)
def test_given_a_status_that_passes_when_sorted_then_it_is_tried_again(
    status: int, overload: bool, everybody: bool
) -> None:
    trouble = troubles.of_status(status, {}, "<html>\n<b>busy</b></html>", 0)
    assert (trouble.failure.code, trouble.failure.retriable) == ("endpoint_unavailable", True)
    assert (trouble.overload, trouble.everybody) == (overload, everybody)
    assert "\n" not in trouble.failure.message


def test_given_no_answer_when_sorted_then_everybody_waits_and_it_is_tried_again() -> None:
    for trouble in (troubles.timed_out(3), troubles.disconnected("reset\nby peer")):
        assert trouble.failure.retriable
        assert trouble.overload
        assert trouble.everybody
        assert trouble.absent
        assert "\n" not in trouble.failure.message


def test_given_garbage_when_sorted_then_that_request_is_tried_again_alone() -> None:
    trouble = troubles.garbled("it is no JSON")
    assert trouble.failure.retriable
    assert not trouble.overload
    assert not trouble.everybody


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (_openai("too\nmuch"), "too much"),
        ('{"error": "plain"}', "plain"),
        ('{"object": "error", "message": "vLLM of old"}', "vLLM of old"),
        ('{"detail": [{"msg": "field required"}]}', '{"msg": "field required"}'),
        ('[{"error": {"message": "Google"}}]', "Google"),
        ("<html>busy</html>", "<html>busy</html>"),
        ("x" * 1000, "x" * 299 + "…"),
    ],
)
def test_given_a_body_of_any_shape_when_told_then_its_message_is_found(
    body: str, said: str
) -> None:
    message = troubles.of_status(400, {}, body, 0).failure.message
    assert message == f"the endpoint answered 400 ({said})"


def test_given_an_empty_body_when_told_then_the_status_stands_alone() -> None:
    assert troubles.of_status(400, {}, "", 0).failure.message == "the endpoint answered 400"


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({}, "", None),
        ({"retry-after": "7"}, "", 7),
        ({"retry-after": "0.5"}, "", 0.5),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "99999999"}, "", 3600),
        ({"retry-after-ms": "250", "retry-after": "7"}, "", 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, "", 40),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, "", 0),
        ({}, '[{"error": {"details": [{"retryDelay": "17s"}]}}]', 17),
    ],
)
def test_given_a_wish_to_be_left_alone_when_read_then_it_is_that_many_seconds(
    headers: dict[str, str], body: str, seconds: float | None
) -> None:
    assert troubles.retry_after(headers, body, now=60) == seconds
    assert troubles.of_status(429, headers, body, 60).wait == seconds
