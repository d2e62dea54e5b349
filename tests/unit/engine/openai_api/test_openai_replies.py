from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.collector import request
from worker.engine.openai_api.replies import NO_ID, Choice, Garbled, Reply, read, samples
from worker.engine.protocol import Failed, Sample, TokenLogprob, TopLogprob


def _body(*choices: dict[str, Any], **more: Any) -> str:
    return json.dumps({"choices": choices, **more})


def _text(text: str, reason: str | None = "stop", index: int = 0, **more: Any) -> dict[str, Any]:
    return {"text": text, "finish_reason": reason, "index": index, **more}


def test_given_an_answer_when_read_then_choices_are_in_order_and_tokens_counted() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 9}
    body = _body(_text("b", "length", 1), _text("a", "stop", 0), usage=usage)
    reply = read(body, 0)
    assert [(one.text, one.finish_reason) for one in reply.choices] == [
        ("a", "stop"),
        ("b", "length"),
    ]
    assert (reply.prompt_tokens, reply.completion_tokens) == (3, 9)


def test_given_a_chat_without_content_when_read_then_the_text_is_empty() -> None:
    choice = {"message": {"content": None}, "finish_reason": "length", "index": 0}
    assert read(_body(choice), 0).choices[0].text == ""


@pytest.mark.parametrize(
    ("told", "read_as"),
    [
        ("stop", "stop"),
        ("eos_token", "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("content_filter", "content_filter"),
        ("content_filter: RECITATION", "content_filter"),
    ],
)
def test_given_a_reason_in_a_servers_own_words_when_read_then_it_is_ours(
    told: str, read_as: str
) -> None:
    assert read(_body(_text("x", told)), 0).choices[0].finish_reason == read_as


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>",
        "[" * 100_000,
        "null",
        "{}",
        '{"choices": []}',
        '{"choices": "no"}',
        '{"choices": [1]}',
        _body({"finish_reason": "stop"}),
        _body(_text("x", None)),
        _body(_text("x", "exploded")),
        _body({"message": {"content": 3}, "finish_reason": "stop"}),
        _body(_text("x", logprobs={"tokens": ["a"], "token_logprobs": []})),
        _body(_text("x", logprobs={"content": [{"token": "a"}]})),
        _body(_text("x", logprobs=[1])),
        _body(_text("x", logprobs={"tokens": ["a"], "token_logprobs": [None]})),
    ],
)
def test_given_what_is_no_answer_when_read_then_it_is_said(body: str) -> None:
    with pytest.raises(Garbled):
        read(body, 2)


@pytest.mark.parametrize("usage", [None, 3, {}, {"prompt_tokens": "many", "completion_tokens": -1}])
def test_given_no_honest_usage_when_read_then_tokens_are_zero(usage: Any) -> None:
    reply = read(_body(_text("x"), usage=usage), 0)
    assert (reply.prompt_tokens, reply.completion_tokens) == (0, 0)


def test_given_logprobs_of_either_surface_when_read_then_they_are_the_same() -> None:
    expected = (
        TokenLogprob(
            "a", NO_ID, -0.1, (TopLogprob("a", NO_ID, -0.1), TopLogprob("b", NO_ID, -2.0))
        ),
        TokenLogprob(
            "c", NO_ID, -3.0, (TopLogprob("d", NO_ID, -0.5), TopLogprob("c", NO_ID, -3.0))
        ),
    )
    tops = [{"b": -2.0, "a": -0.1, "z": -9.0}, {"c": -3.0, "d": -0.5}]
    completion = _text(
        "ac",
        logprobs={"tokens": ["a", "c"], "token_logprobs": [-0.1, -3.0], "top_logprobs": tops},
    )
    content = [
        {
            "token": token,
            "logprob": value,
            "top_logprobs": [{"token": t, "logprob": p} for t, p in top.items()],
        }
        for token, value, top in zip("ac", (-0.1, -3.0), tops, strict=True)
    ]
    chat = {
        "message": {"content": "ac"},
        "finish_reason": "stop",
        "index": 0,
        "logprobs": {"content": content},
    }
    assert read(_body(completion), 2).choices[0].logprobs == expected
    assert read(_body(chat), 2).choices[0].logprobs == expected


def _reply(*texts: str, tokens: int, reason: str = "stop") -> Reply:
    return Reply(tuple(Choice(text, reason, None) for text in texts), 4, tokens)


def test_given_several_replies_when_put_together_then_samples_are_numbered_through() -> None:
    one = request("a", "x", n=3)
    made = samples(one, [_reply("a", "b", tokens=4), _reply("c", "d", tokens=2)])
    assert not isinstance(made, Failed)
    assert [(one.index, one.text) for one in made] == [(0, "a"), (1, "b"), (2, "c")]


@pytest.mark.parametrize("tokens", [0, 1, 7, 10, 1000])
def test_given_a_sum_of_tokens_when_shared_out_then_it_stays_the_sum(tokens: int) -> None:
    made = samples(request("a", "x", n=3), [_reply("aaaa", "", "bbbbbbbbb", tokens=tokens)])
    assert not isinstance(made, Failed)
    shares = [one.completion_tokens for one in made]
    assert sum(shares) == tokens
    assert shares[1] <= shares[0] <= shares[2]


@pytest.mark.parametrize(
    ("tokens", "reasons", "shares"),
    [
        (16, "length length", [8, 8]),
        (11, "length stop", [8, 3]),
        (6, "length length", [3, 3]),
        (20, "length length", [10, 10]),
        (7, "length stop", [4, 3]),
    ],
)
def test_given_texts_that_reached_the_limit_when_shared_out_then_they_have_so_many(
    tokens: int, reasons: str, shares: list[int]
) -> None:
    choices = tuple(Choice("aa", reason, None) for reason in reasons.split())
    made = samples(request("a", "x", n=2, max_tokens=8), [Reply(choices, 4, tokens)])
    assert not isinstance(made, Failed)
    assert [one.completion_tokens for one in made] == shares


def test_given_stop_strings_that_the_endpoint_left_when_made_then_the_text_is_cut() -> None:
    made = samples(
        request("a", "x", stop=["END"]), [_reply("oneENDtwo", tokens=3, reason="length")]
    )
    assert not isinstance(made, Failed)
    assert (made[0].text, made[0].finish_reason, made[0].completion_tokens) == ("one", "stop", 3)


def test_given_echo_when_made_then_the_prompt_comes_first() -> None:
    made = samples(request("a", "before ", echo=True, stop=["e"]), [_reply("after", tokens=1)])
    assert not isinstance(made, Failed)
    assert made[0].text == "before aft"


def test_given_a_filtered_text_when_made_then_the_request_fails() -> None:
    made = samples(request("a", "x"), [_reply("ha", tokens=1, reason="content_filter")])
    assert isinstance(made, Failed)
    assert (made.code, made.retriable) == ("content_filter", False)


def test_given_logprobs_that_did_not_come_when_made_then_the_request_fails() -> None:
    made = samples(request("a", "x", logprobs=1), [_reply("ha", tokens=1)])
    assert isinstance(made, Failed)
    assert made.code == "unsupported_parameter"
    assert "logprobs" in made.message


def test_given_two_alternatives_of_one_text_when_read_then_the_chosen_one_keeps_its_own() -> None:
    """As of a tokenizer whose bytes all read as the replacement character."""
    logprobs = {
        "tokens": ["?"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"?": -2.0, "a": -1.0}],
    }
    found = read(_body(_text("?", logprobs=logprobs)), 2).choices[0].logprobs
    assert found is not None
    assert [(text, value) for text, _, value, _ in found[0].top] == [("?", -0.5), ("a", -1.0)]


# --- thinking and calls ---------------------------------------------------------------------


def _message(reason: str = "stop", **message: Any) -> dict[str, Any]:
    return {"message": {"content": "Paris.", **message}, "finish_reason": reason, "index": 0}


def _call(**changes: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": '{"city": "Paris"}', **changes}
    return {"id": "call_1", "type": "function", "function": function, "index": 0}


def _sample(message: dict[str, Any]) -> Sample:
    made = samples(request("a", "x"), [read(_body(message), 0)])
    assert not isinstance(made, Failed)
    return made[0]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_given_thinking_under_either_name_when_read_then_it_is_apart(name: str) -> None:
    thought: dict[str, Any] = {name: "Hm."}
    made = _sample(_message("stop", **thought))
    assert (made.reasoning, made.text) == ("Hm.", "Paris.")
    nothing: dict[str, Any] = {name: None}
    assert _sample(_message("stop", **nothing)).reasoning is None


@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
def test_given_calls_when_read_then_they_are_openais_and_no_more(reason: str) -> None:
    made = _sample(_message(reason, content=None, tool_calls=[_call()]))
    assert (made.text, made.finish_reason) == ("", "tool_calls")
    function = {"name": "weather", "arguments": '{"city": "Paris"}'}
    assert made.tool_calls == ({"id": "call_1", "type": "function", "function": function},)


def test_given_arguments_that_are_an_object_when_read_then_they_are_json() -> None:
    reply = read(_body(_message(tool_calls=[_call(arguments={"city": "Paris"})])), 0)
    (call,) = reply.choices[0].tool_calls or ()
    assert call["function"]["arguments"] == '{"city": "Paris"}'


def test_given_a_call_that_reached_the_limit_when_read_then_the_reason_says_so() -> None:
    reply = read(_body(_message("length", tool_calls=[_call()])), 0)
    assert reply.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    "choice",
    [
        _message("tool_calls"),
        _message(tool_calls="weather"),
        _message(tool_calls=["weather"]),
        _message(tool_calls=[{"function": {"arguments": "{}"}}]),
    ],
)
def test_given_calls_that_are_none_when_read_then_the_answer_is_garbled(
    choice: dict[str, Any],
) -> None:
    with pytest.raises(Garbled):
        read(_body(choice), 0)
