"""Any chat, through the template of any family: nothing is lost, and the answer begins in place."""

from __future__ import annotations

from functools import cache
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from db.sampling import SamplingParams
from tests.support.template_families import (
    OPENINGS,
    TEMPLATES,
    Family,
    families,
    family_tokenizer,
)
from worker.engine.protocol import Failed, Request
from worker.engine.shared.prompt import Prompt, Prompter

#: Unix seconds.
CLOCK = 1_769_860_800.0

#: Words of the templates, their tokens and marks, and anything else.
words = st.sampled_from(
    [
        *("a", "user", "assistant", "<think>", "</think>", "<|im_start|>", "<|im_end|>", "[INST]"),
        *("<|Assistant|>", "<start_of_turn>model\n", "<|start|>assistant", "\n", " ", "{{", "%}"),
        *TEMPLATES.values(),
    ]
)
texts = st.lists(st.one_of(words, st.text(max_size=8)), max_size=3).map("".join)
contents = st.one_of(
    texts,
    st.lists(texts, min_size=2, max_size=3).map(
        lambda parts: [{"type": "text", "text": part} for part in parts]
    ),
)


@st.composite
def chats(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Turns of user and assistant, the user's last, perhaps after a system's or with names."""
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        role = draw(st.sampled_from(["system", "developer"]))
        messages.append({"role": role, "content": draw(contents)})
    for number in range(draw(st.sampled_from([1, 3]))):
        role = "assistant" if number % 2 else "user"
        messages.append({"role": role, "content": draw(contents)})
    if draw(st.integers(0, 3)) == 0:
        messages[-1]["name"] = draw(texts)
    return messages


@cache
def prompter(family: Family) -> Prompter:
    return Prompter(family_tokenizer(family))


def parts_of(content: Any) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(families()), chats())
def test_chat_is_in_the_prompt_or_fails_by_name(family: Family, chat: list[dict[str, Any]]) -> None:
    asked = Request("a", SamplingParams(), 0, messages=chat, clock=CLOCK)
    prompt = prompter(family).prompt(asked)
    again = prompter(family).prompt(asked)
    if isinstance(prompt, Failed):
        assert prompt.code in ("not_rendered", "bad_chat")
        assert prompt == again
        return
    assert isinstance(again, Prompt)
    assert (prompt.text, prompt.opening) == (again.text, again.opening)
    assert prompt.text.endswith(OPENINGS[family])
    assert prompt.opening is not None
    assert OPENINGS[family].endswith(prompt.opening.text)
    for message in chat:
        texts_of = [*parts_of(message["content"]), message.get("name", "")]
        # Reasoning in an earlier answer is the template's to leave out.
        if message["role"] == "assistant" and any("</think>" in text for text in texts_of):
            continue
        assert all(text.strip() in prompt.text for text in texts_of)
