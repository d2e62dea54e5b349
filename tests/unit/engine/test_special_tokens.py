"""Special tokens around a prompt: the tokenizer's own, once, or none."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from db.modes import EmbedParams, ScoreParams
from db.sampling import SamplingParams
from tests.support.collector import request
from tests.support.template_families import family_tokenizer
from tests.support.tiny_models import wrapped
from worker.engine import parameters
from worker.engine.protocol import EmbedRequest, Failed, Request, ScoreRequest
from worker.engine.shared.prompt import Prompt, Prompter

RENDERED = "<bos><start_of_turn>user\nOne, two<end_of_turn>\n<start_of_turn>model\n"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return wrapped(family_tokenizer("gemma"), "<bos> $A")


def ids(prompter: Prompter, asked: Request | ScoreRequest | EmbedRequest) -> list[int]:
    prompt = prompter.prompt(asked)
    assert isinstance(prompt, Prompt), prompt
    return prompt.token_ids


@pytest.mark.parametrize(("given", "times"), [(None, 2), (True, 2), (False, 1)])
def test_rendered_prompt_has_one_bos_where_it_asks_for_it(
    tokenizer: Any, given: bool | None, times: int
) -> None:
    prompter, bos = Prompter(tokenizer), tokenizer.bos_token_id
    asked = (
        request("a", RENDERED, add_special_tokens=given),
        ScoreRequest("a", ScoreParams(add_special_tokens=given), RENDERED, completion="x"),
        EmbedRequest("a", EmbedParams(add_special_tokens=given), RENDERED),
    )
    for one in asked:
        assert ids(prompter, one).count(bos) == times


@pytest.mark.parametrize(("given", "times"), [(None, 1), (False, 1), (True, 2)])
def test_chat_has_what_its_template_writes(tokenizer: Any, given: bool | None, times: int) -> None:
    chat = request("a", [{"role": "user", "content": "One, two"}], add_special_tokens=given)
    found = ids(Prompter(tokenizer), chat)
    assert found.count(tokenizer.bos_token_id) == times
    rendered = request("b", RENDERED, add_special_tokens=False)
    assert found[times - 1 :] == ids(Prompter(tokenizer), rendered)


def test_completion_follows_the_prompt_without_bos(tokenizer: Any) -> None:
    prompter = Prompter(tokenizer)
    prompt = prompter.prompt(request("a", "One, two", add_special_tokens=False))
    assert isinstance(prompt, Prompt)
    completion = prompter.completion(prompt, ", three", joined=True)
    assert (
        completion
        == tokenizer.encode("One, two, three", add_special_tokens=False)[len(prompt.token_ids) :]
    )


def test_second_bos_is_warned_of_once(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    prompter = Prompter(tokenizer)
    with caplog.at_level(logging.WARNING):
        prompter.prompt(request("a", "One, two"))
        prompter.prompt(request("b", RENDERED, add_special_tokens=False))
        assert caplog.records == []
        for _ in range(3):
            prompter.prompt(request("c", RENDERED))
    (record,) = caplog.records
    assert record.__dict__["action"] == "bos_twice"
    assert "set add_special_tokens to false" in record.getMessage()
    assert "One, two" not in record.getMessage()


def test_engine_without_the_tokenizer_refuses_it() -> None:
    asked = SamplingParams(add_special_tokens=False)
    refused = parameters.refusal("openai", asked)
    assert isinstance(refused, Failed)
    assert "with the option extensions=vllm" in refused.message
    for engine in ("transformers", "keras", "vllm", "echo"):
        assert parameters.refusal(engine, asked) is None
