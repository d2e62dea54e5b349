"""Tokens that end an assistant's turn, found in the templates of real families."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.support.collector import request
from tests.support.parrots import parrot_tokenizer
from tests.support.template_families import ENDS, Family, families, family_tokenizer
from worker.engine.shared.chat_template import ChatTemplate
from worker.engine.shared.prompt import Prompt, Prompter
from worker.engine.shared.turn_ends import turn_ends
from worker.engine.vllm_engine import sampling


def ends_of(tokenizer: Any) -> set[str]:
    ids = sorted(turn_ends(tokenizer, ChatTemplate(tokenizer)))
    return set(tokenizer.convert_ids_to_tokens(ids))


@pytest.mark.parametrize("family", families())
def test_end_of_a_family_is_what_its_template_writes(family: Family) -> None:
    tokenizer = family_tokenizer(family)
    assert ends_of(tokenizer) >= {ENDS[family], tokenizer.eos_token}


def test_end_of_a_message_within_a_turn_ends_no_turn() -> None:
    assert "<|end|>" not in ends_of(family_tokenizer("gpt-oss"))
    assert "<|end|>" not in ends_of(parrot_tokenizer("harmony"))
    assert ends_of(family_tokenizer("gpt-oss")) >= {"<|return|>", "<|call|>"}
    assert "<|end|>" in ends_of(parrot_tokenizer("r1"))


def test_end_that_no_list_knows_is_found() -> None:
    tokenizer = family_tokenizer("chatml")
    tokenizer.add_tokens(["<stop>"])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }} <stop>\n{% endfor %}"
    )
    assert "<stop>" in ends_of(tokenizer)


def test_end_of_a_template_of_parts_is_found() -> None:
    tokenizer = family_tokenizer("gemma")
    tokenizer.chat_template = (
        "{% for m in messages %}{% for part in m.content if part.type == 'text' %}"
        "{{ part.text }}{% endfor %}</s>{% endfor %}"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["</s>"]})
    assert "</s>" in ends_of(tokenizer)


@pytest.mark.parametrize("template", [None, "{{ raise_exception('no') }}", "{% if %}", "nothing"])
def test_template_that_tells_nothing_leaves_the_tokenizers_own(template: str | None) -> None:
    tokenizer = family_tokenizer("mistral")
    tokenizer.chat_template = template
    assert ends_of(tokenizer) == {"</s>"}


def test_token_that_the_tokenizer_calls_end_of_turn_is_one() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=family_tokenizer("mistral").backend_tokenizer,
        eos_token="</s>",
        extra_special_tokens={"eot_token": "<over>"},
    )
    assert "<over>" in ends_of(tokenizer)


def test_end_that_would_show_is_left_out_of_a_chat_only() -> None:
    tokenizer = family_tokenizer("chatml")
    tokenizer.add_tokens(["<stop>"])
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<stop>{% endfor %}"
    prompter = Prompter(tokenizer)
    asked = request("a", [{"role": "user", "content": "Hi."}])
    prompt = prompter.prompt(asked)
    assert isinstance(prompt, Prompt)
    ids = tokenizer.encode("Paris.<stop>", add_special_tokens=False)
    assert prompter.message(asked, prompt, ids, "stop", 0).text == "Paris."
    plain = request("b", "Hi.")
    assert prompter.message(plain, Prompt([1], "Hi."), ids, "stop", 0).text == "Paris.<stop>"


def test_vllm_is_told_the_ends_of_a_chat() -> None:
    chat = [{"role": "user", "content": "Hi."}]

    def stops(*arguments: Any, **params: Any) -> list[int]:
        asked = request(*arguments, stop_token_ids=[7], **params)
        found: list[int] = sampling.arguments(asked, 9, 0, turn_ends=[3])["stop_token_ids"]
        return found

    assert stops("a", chat) == [3, 7]
    assert stops("a", "Hi.") == [7]
    assert stops("a", chat, ignore_eos=True) == [7]
