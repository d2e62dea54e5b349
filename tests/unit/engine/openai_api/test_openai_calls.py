from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.collector import request
from worker.engine.openai_api.calls import Call, call_for, refused
from worker.engine.openai_api.settings import Dialect
from worker.engine.protocol import Request

CHAT = [{"role": "user", "content": "yes or no?"}]


def _call(one: Request, api: str = "auto", dialect: Dialect = Dialect.NONE, got: int = 0) -> Call:
    assert refused(one, api, dialect) is None
    return call_for(one, "m", api, dialect, got)


def test_given_a_prompt_when_built_then_it_is_a_completion_with_every_default_told() -> None:
    call = _call(request("a", "hello", seed=7, temperature=1.0, max_tokens=5))
    assert not call.chat
    assert call.fields == {
        "model": "m",
        "prompt": "hello",
        "max_tokens": 5,
        "temperature": 1.0,
        "top_p": 1.0,
        "seed": 7,
    }
    assert not call.extra


def test_given_a_chat_when_built_for_openai_then_its_defaults_are_left_out() -> None:
    call = _call(request("a", CHAT, temperature=1.0), dialect=Dialect.OPENAI)
    assert call.chat
    assert call.fields == {
        "model": "m",
        "messages": CHAT,
        "max_completion_tokens": 8,
        "seed": 0,
    }


def test_given_other_values_when_built_for_openai_then_they_are_told() -> None:
    call = _call(request("a", CHAT, temperature=0.5, top_p=0.9), dialect=Dialect.OPENAI)
    assert (call.fields["temperature"], call.fields["top_p"]) == (0.5, 0.9)


def test_given_api_chat_when_a_prompt_is_built_then_it_is_one_users_message() -> None:
    call = _call(request("a", "hello"), api="chat")
    assert call.chat
    assert call.fields["messages"] == [{"role": "user", "content": "hello"}]
    assert call.fields["max_tokens"] == 8


def test_given_no_limit_when_built_then_it_is_our_default() -> None:
    assert _call(request("a", "x", max_tokens=None)).fields["max_tokens"] == 128


@pytest.mark.parametrize("dialect", Dialect)
def test_given_many_stop_strings_when_built_then_the_endpoint_gets_what_all_take(
    dialect: Dialect,
) -> None:
    call = _call(request("a", "x", stop=list("abcdef")), dialect=dialect)
    assert call.fields["stop"] == list("abcd")


def test_given_samples_that_have_come_when_built_then_the_rest_is_asked_for() -> None:
    one = request("a", "x", seed=2**31 + 5, n=4)
    first, rest, last = (_call(one, got=got) for got in (0, 2, 3))
    assert (first.fields["n"], first.fields["seed"]) == (4, 5)
    assert (rest.fields["n"], rest.fields["seed"]) == (2, 7)
    assert "n" not in last.fields
    assert last.fields["seed"] == 8


def test_given_greedy_samples_when_built_for_vllm_then_one_is_asked_for_at_a_time() -> None:
    assert _call(request("a", "x", n=3)).fields["n"] == 3
    assert "n" not in _call(request("a", "x", n=3), dialect=Dialect.VLLM).fields


def test_given_logprobs_when_built_then_each_surface_gets_its_spelling() -> None:
    assert _call(request("a", "x", logprobs=2)).fields["logprobs"] == 2
    assert _call(request("a", "x", logprobs=True)).fields["logprobs"] == 0
    chat = _call(request("a", CHAT, logprobs=True, top_logprobs=3)).fields
    assert (chat["logprobs"], chat["top_logprobs"]) == (True, 3)


def test_given_vllm_when_built_then_its_own_fields_are_all_told() -> None:
    asked: dict[str, Any] = {
        "top_k": 5,
        "min_p": 0.1,
        "repetition_penalty": 1.5,
        "ignore_eos": True,
    }
    plain = _call(request("a", "x"), dialect=Dialect.VLLM).extra
    assert plain == {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "ignore_eos": False}
    rendered = _call(request("a", "x", add_special_tokens=False), dialect=Dialect.VLLM).extra
    assert rendered == {**plain, "add_special_tokens": False}
    full = _call(request("a", "x", **asked, stop_token_ids=[3]), dialect=Dialect.VLLM).extra
    assert full == {**asked, "stop_token_ids": [3]}


def test_given_a_chat_that_ends_with_the_assistant_when_built_for_vllm_then_it_goes_on() -> None:
    chat = [*CHAT, {"role": "assistant", "content": "I say"}]
    extra = _call(request("a", chat), dialect=Dialect.VLLM).extra
    assert (extra["continue_final_message"], extra["add_generation_prompt"]) == (True, False)


def test_given_a_request_when_its_tokens_are_guessed_then_all_that_it_may_cost_counts() -> None:
    assert _call(request("a", "x" * 400, n=3, max_tokens=10)).tokens == 101 + 30


@pytest.mark.parametrize(
    "params",
    [
        {"top_k": 5},
        {"min_p": 0.5},
        {"repetition_penalty": 1.2},
        {"stop_token_ids": [1]},
        {"ignore_eos": True},
    ],
    ids=lambda params: next(iter(params)),
)
def test_given_a_parameter_of_vllms_when_the_endpoint_is_another_then_it_is_refused_by_name(
    params: dict[str, Any],
) -> None:
    one = request("a", "x", **params)
    for dialect in (Dialect.NONE, Dialect.OPENAI, Dialect.GOOGLE):
        failure = refused(one, "auto", dialect)
        assert failure is not None
        assert failure.code == "unsupported_parameter"
        assert next(iter(params)) in failure.message
        assert "extensions=vllm" in failure.message
    assert refused(one, "auto", Dialect.VLLM) is None


@pytest.mark.parametrize(
    ("one", "api", "dialect", "code", "word"),
    [
        (request("a", "x", max_length=9), "auto", Dialect.VLLM, "unsupported_parameter", "max_le"),
        (request("a", CHAT, echo=True), "auto", Dialect.NONE, "unsupported_parameter", "echo"),
        (
            Request("a", request("a", "x", seed=0).params.model_copy(update={"seed": 3}), 3, "x"),
            "auto",
            Dialect.GOOGLE,
            "unsupported_parameter",
            "seed",
        ),
        (request("a", ""), "auto", Dialect.NONE, "empty_prompt", "no tokens"),
        (request("a", []), "auto", Dialect.NONE, "bad_chat", "no messages"),
        (request("a", CHAT), "completions", Dialect.NONE, "bad_chat", "api=completions"),
    ],
)
def test_given_what_no_endpoint_can_do_when_asked_then_it_is_refused(
    one: Request, api: str, dialect: Dialect, code: str, word: str
) -> None:
    failure = refused(one, api, dialect)
    assert failure is not None
    assert failure.code == code
    assert word in failure.message
    assert not failure.retriable


def test_given_google_when_no_seed_was_given_then_none_is_sent() -> None:
    assert "seed" not in _call(request("a", CHAT, seed=5), dialect=Dialect.GOOGLE).fields


# --- tools, and how a chat is rendered ------------------------------------------------------

TOOLS = [{"type": "function", "function": {"name": "weather"}}]


def test_given_tools_when_built_then_they_and_the_choice_are_told() -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    asked = request("a", CHAT, tool_choice=named, parallel_tool_calls=False)
    call = _call(replace(asked, tools=TOOLS), dialect=Dialect.OPENAI)
    assert call.fields["tools"] == TOOLS
    assert call.fields["tool_choice"] == named
    assert call.fields["parallel_tool_calls"] is False
    plain = _call(replace(request("a", CHAT), tools=TOOLS)).fields
    assert plain["tools"] == TOOLS
    assert not {"tool_choice", "parallel_tool_calls"} & set(plain)


def test_given_a_templates_switches_when_built_then_vllm_is_told_and_others_refuse() -> None:
    asked = request("a", CHAT, chat_template_kwargs={"enable_thinking": False})
    call = _call(asked, dialect=Dialect.VLLM)
    assert call.extra["chat_template_kwargs"] == {"enable_thinking": False}
    failed = refused(asked, "auto", Dialect.OPENAI)
    assert failed is not None
    assert failed.code == "unsupported_parameter"
    assert "chat_template_kwargs" in failed.message


@pytest.mark.parametrize(
    ("params", "last", "told"),
    [
        ({}, "user", None),
        ({}, "assistant", (True, False)),
        ({"add_generation_prompt": True}, "assistant", None),
        ({"continue_final_message": False}, "assistant", None),
        ({"add_generation_prompt": False}, "user", (False, False)),
        ({"continue_final_message": True}, "assistant", (True, False)),
    ],
)
def test_given_turns_when_built_for_vllm_then_it_is_told_where_they_are_not_its_default(
    params: dict[str, bool], last: str, told: tuple[bool, bool] | None
) -> None:
    chat = [*CHAT, {"role": last, "content": "On the"}]
    extra = _call(request("a", chat, **params), dialect=Dialect.VLLM).extra
    found = extra.get("continue_final_message"), extra.get("add_generation_prompt")
    assert found == (told or (None, None))
