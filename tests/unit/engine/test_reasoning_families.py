"""Reasoning apart from the answer: families of templates on families of decoders."""

from __future__ import annotations

from typing import Any

import pytest

from db.sampling import SamplingParams
from tests.support.template_families import TEMPLATES, Family, tokens_of
from tests.support.tokenizer_families import FAMILIES, family_tokenizer
from tests.support.tokenizer_families import Family as Decoder
from worker.engine.protocol import Request
from worker.engine.shared.prompt import Prompt, Prompter

#: What a model of the family says, after its prompt.
SAYS: dict[Family, str] = {
    "qwen3": "<think>the house is big</think>the capital",
    "deepseek-r1": "the house is big</think>the capital",
    "gpt-oss": (
        "<|channel|>analysis<|message|>the house is big<|end|><|start|>assistant<|channel|>final"
        "<|message|>the capital<|return|>"
    ),
}

#: They stand in the templates, or look like what stands there.
CONTENTS = ("a", "think", "n", "<think>", "</think>", "assistant", "final")


@pytest.fixture(scope="module", params=FAMILIES)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    decoder: Decoder = request.param
    return decoder


def chat_tokenizer(family: Family, decoder: Decoder) -> Any:
    special, shown = tokens_of(family)
    tokenizer = family_tokenizer(decoder, special)
    tokenizer.add_tokens(list(shown))
    tokenizer.chat_template = TEMPLATES[family]
    return tokenizer


@pytest.mark.parametrize("family", SAYS)
def test_reasoning_is_apart_whatever_is_asked(family: Family, decoder: Decoder) -> None:
    tokenizer = chat_tokenizer(family, decoder)
    prompter = Prompter(tokenizer)
    says = prompter.following_ids(SAYS[family])
    for content in CONTENTS:
        asked = Request("a", SamplingParams(), 0, messages=[{"role": "user", "content": content}])
        prompt = prompter.prompt(asked)
        assert isinstance(prompt, Prompt)
        said = prompter.message(asked, prompt, says, "stop", 0)
        assert (said.reasoning, said.text) == ("the house is big", "the capital"), content
